# Reads the settings of the cluster. Sourced by up and smoke, which run in this directory.

say() { echo "$PROGRAM: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

# Prints a setting from the environment or else from .env.
setting() { echo "${!1:-$(sed -n "s/^$1=//p" .env)}"; }

# Prints the address that reaches the published ports from this machine.
host() {
    case $(setting BIND_ADDRESS) in
    0.0.0.0) echo 127.0.0.1 ;;
    '[::]') echo '[::1]' ;;
    *) setting BIND_ADDRESS ;;
    esac
}
