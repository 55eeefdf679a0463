# Starts each node and checks its readiness. Sourced by cluster.

BROKERS='kafka-1 kafka-2 kafka-3'
ZOOKEEPERS='zookeeper-1 zookeeper-2 zookeeper-3'
if [ "$MODE" = kraft ]; then ZOOKEEPERS=; fi
NODES="$BROKERS ${ZOOKEEPERS:+$ZOOKEEPERS }registry-1 registry-2 registry-3 nginx postgres mongodb"

# All controllers of a KRaft cluster are formatted with its id.
CLUSTER_ID=dmVoaWNsZS1wbGF0Zm9ybQ

# Kafka reads the first before version 4, and the second since.
LOGGING=("-Dlog4j.configuration=file:$HERE/log4j.properties" "-Dlog4j2.configurationFile=file:$HERE/log4j2.properties")

# Prints the number at the end of a node's name.
number() { echo "${1##*-}"; }

port() {
    [[ " $NODES " = *" $1 "* ]] || fail "unknown node $1; the nodes are: $NODES"
    case $1 in
    zookeeper-*) echo $((PORT_BASE + 10 + $(number "$1"))) ;;
    kafka-*) echo $((PORT_BASE + 20 + $(number "$1"))) ;;
    registry-*) echo $((PORT_BASE + 30 + $(number "$1"))) ;;
    nginx) echo $((PORT_BASE + 40)) ;;
    postgres) echo $((PORT_BASE + 50)) ;;
    mongodb) echo $((PORT_BASE + 60)) ;;
    esac
}

# The port that a broker listens on as a controller.
controller_port() { echo $((PORT_BASE + 10 + $(number "$1"))); }

# The port that a broker listens on for the clients of one role, and the port that it advertises to them. A proxy
# between the two (tests/chaos) can disconnect the role. Roles are numbered from 1 to 4.
role_port() { echo $((PORT_BASE + 200 + 10 * $2 + $(number "$1"))); }
proxied_port() { echo $((PORT_BASE + 300 + 10 * $2 + $(number "$1"))); }

bootstrap_servers() { echo "127.0.0.1:$(port kafka-1),127.0.0.1:$(port kafka-2),127.0.0.1:$(port kafka-3)"; }
registry_url() { echo "http://127.0.0.1:$(port "$1")/apis/ccompat/v7"; }

# Starts "$@" for a node: in a separate session, with its output in the node's log.
launch() {
    local node=$1
    shift
    setsid "$@" >>"$LOGS/$node.log" 2>&1 </dev/null 8>&- &
    echo $! >"$PIDS/$node"
}

# Runs a command as an unprivileged user when we are root, because PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups "$@"; else "$@"; fi
}

start_zookeeper() {
    local node=$1 data=$DATA/$1
    mkdir -p "$data"
    number "$node" >"$data/myid"
    {
        echo "tickTime=1000
initLimit=20
syncLimit=10
dataDir=$data
clientPort=$(port "$node")
clientPortAddress=127.0.0.1
4lw.commands.whitelist=srvr
admin.enableServer=false"
        for peer in 1 2 3; do
            echo "server.$peer=127.0.0.1:$((PORT_BASE + 100 + peer)):$((PORT_BASE + 110 + peer))"
        done
    } >"$data/zoo.cfg"
    launch "$node" java -Xms32m -Xmx96m -XX:+UseSerialGC "${LOGGING[@]}" \
        -cp "$JARS/*" org.apache.zookeeper.server.quorum.QuorumPeerMain "$data/zoo.cfg"
}

# Prints the settings of a broker that depend on where the metadata are.
metadata_settings() {
    local peers
    case $MODE in
    zookeeper)
        peers=$(for peer in 1 2 3; do echo -n "127.0.0.1:$(port zookeeper-$peer),"; done)
        echo "broker.id=$(number "$1")
zookeeper.connect=${peers%,}/kafka
zookeeper.connection.timeout.ms=60000
zookeeper.session.timeout.ms=9000
controlled.shutdown.max.retries=1"
        ;;
    kraft)
        peers=$(for peer in 1 2 3; do echo -n "$peer@127.0.0.1:$(controller_port kafka-$peer),"; done)
        echo "process.roles=broker,controller
node.id=$(number "$1")
controller.listener.names=CONTROLLER
controller.quorum.voters=${peers%,}"
        ;;
    esac
}

start_kafka() {
    local node=$1 data=$DATA/$1 listeners advertised protocols
    listeners=PLAINTEXT://127.0.0.1:$(port "$node") advertised=$listeners protocols=PLAINTEXT:PLAINTEXT
    for role in 1 2 3 4; do
        listeners+=,ROLE$role://127.0.0.1:$(role_port "$node" $role)
        advertised+=,ROLE$role://127.0.0.1:$(proxied_port "$node" $role)
        protocols+=,ROLE$role:PLAINTEXT
    done
    if [ "$MODE" = kraft ]; then
        listeners+=,CONTROLLER://127.0.0.1:$(controller_port "$node")
        protocols+=,CONTROLLER:PLAINTEXT
    fi
    mkdir -p "$data"
    # Retention is checked often, so that a test whose old records it deletes fails each time.
    cat >"$data/server.properties" <<PROPERTIES
$(metadata_settings "$node")
listeners=$listeners
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
inter.broker.listener.name=PLAINTEXT
log.dirs=$data/log
auto.create.topics.enable=false
num.partitions=3
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=6
log.cleaner.dedupe.buffer.size=16777216
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
num.network.threads=2
num.io.threads=4
PROPERTIES
    if [ "$MODE" = kraft ] && [ ! -f "$data/log/meta.properties" ]; then
        java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "${LOGGING[@]}" -cp "$JARS/*" kafka.tools.StorageTool \
            format --cluster-id "$CLUSTER_ID" --config "$data/server.properties" >>"$LOGS/$node.log" 2>&1 ||
            fail "cannot format the storage of $node, see $LOGS/$node.log"
    fi
    launch "$node" java -Xms192m -Xmx384m -XX:+UseSerialGC "${LOGGING[@]}" \
        -cp "$JARS/*" kafka.Kafka "$data/server.properties"
}

start_registry() {
    local node=$1
    launch "$node" env QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT="$(port "$node")" \
        QUARKUS_MANAGEMENT_ENABLED=false \
        APICURIO_STORAGE_KIND=kafkasql APICURIO_KAFKASQL_BOOTSTRAP_SERVERS="$(bootstrap_servers)" \
        APICURIO_KAFKASQL_CONSUMER_POLL_TIMEOUT=100 \
        java -Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -jar "$APICURIO/apicurio-registry-app-$APICURIO_VERSION-runner.jar"
}

start_nginx() {
    local data=$DATA/nginx
    mkdir -p "$data"
    {
        echo "daemon off; pid \"$data/pid\"; error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path \"$data/body\"; proxy_temp_path \"$data/proxy\"; fastcgi_temp_path \"$data/fastcgi\";
    uwsgi_temp_path \"$data/uwsgi\"; scgi_temp_path \"$data/scgi\";
    upstream schema-registry {
        zone schema-registry 1m;
        keepalive 16;"
        for peer in 1 2 3; do
            echo "        server 127.0.0.1:$(port registry-$peer) max_fails=1 fail_timeout=5s;"
        done
        echo "    }
    server {
        listen 127.0.0.1:$(port nginx);
        include \"$ROOT/compose/nginx/schema-registry.conf\";
    }
}"
    } >"$data/nginx.conf"
    launch nginx "$(command -v nginx || echo /usr/sbin/nginx)" -e stderr -c "$data/nginx.conf"
}

start_postgres() {
    local data=$DATA/postgres binaries
    binaries=$(dirname "$(ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -1)")
    # The folder gets its final name only when it is complete.
    if [ ! -d "$data/db" ]; then
        rm -rf "$data/db.part" && mkdir -p "$data"
        [ "$(id -u)" -eq 0 ] && chown postgres "$data"
        echo postgres >"$data/password" && chmod 644 "$data/password"
        as_postgres "$binaries/initdb" -D "$data/db.part" -U postgres -A scram-sha-256 --pwfile "$data/password" \
            >>"$LOGS/postgres.log" 2>&1 || fail "initdb failed, see $LOGS/postgres.log"
        mv "$data/db.part" "$data/db"
    fi
    # The file of a killed server; a zombie that was not yet reaped would still count as running.
    if [ -f "$data/db/postmaster.pid" ] && ! is_alive "$(head -1 "$data/db/postmaster.pid")"; then
        rm -f "$data/db/postmaster.pid" "$data/db"/.s.PGSQL.*
    fi
    if [ "$(id -u)" -eq 0 ]; then
        launch postgres setpriv --reuid postgres --regid postgres --clear-groups \
            "$binaries/postgres" -D "$data/db" -h 127.0.0.1 -p "$(port postgres)" -k "$data/db" -c max_connections=300
    else
        launch postgres "$binaries/postgres" -D "$data/db" -h 127.0.0.1 -p "$(port postgres)" -k "$data/db" -c max_connections=300
    fi
}

# The first start runs without access control to create the user.
start_mongodb() {
    local data=$DATA/mongodb
    if ! mongodb_has_user; then
        mkdir -p "$data/db"
        launch mongodb "$MONGOD" --dbpath "$data/db" --bind_ip 127.0.0.1 --port "$(port mongodb)" \
            --wiredTigerCacheSizeGB 0.25 --nounixsocket
        await mongodb
        python3 "$HERE/mongo_user.py" "$(port mongodb)" || fail 'cannot create the user of MongoDB'
        stop_node mongodb TERM
        touch "$data/initialised"
    fi
    launch mongodb "$MONGOD" --auth --dbpath "$data/db" --bind_ip 127.0.0.1 --port "$(port mongodb)" \
        --wiredTigerCacheSizeGB 0.25 --nounixsocket
}

mongodb_has_user() { [ -f "$DATA/mongodb/initialised" ]; }

start_node() {
    # A first start that was interrupted leaves one that runs without access control.
    if [ "$1" = mongodb ] && ! mongodb_has_user; then stop_node mongodb TERM; fi
    is_running "$1" && return
    case $1 in
    zookeeper-*) start_zookeeper "$1" ;;
    kafka-*) start_kafka "$1" ;;
    registry-*) start_registry "$1" ;;
    nginx | postgres | mongodb) "start_$1" ;;
    esac
}

is_ready() {
    case $1 in
    # Reports a mode only with a quorum.
    zookeeper-*) answers_srvr "$(port "$1")" ;;
    registry-*) curl -fsS -m 5 -o /dev/null "$(registry_url "$1")/subjects" 2>/dev/null ;;
    *) (exec 3<>"/dev/tcp/127.0.0.1/$(port "$1")") 2>/dev/null ;;
    esac
}

answers_srvr() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        echo srvr >&3
        timeout 2 cat <&3 | grep -q Mode
    ) 2>/dev/null
}
