# What up and smoke share: messages, and the settings of the cluster. Both scripts run in this directory. They and this
# file work with bash 3.2 and the tools of macOS.

# Compose handles Ctrl-C, and the shell would then continue with the next command.
trap 'exit 130' INT

say() { echo "$PROGRAM: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

# Prints a setting from the environment, also when it is empty there, or else from .env.
setting() { if [ -n "${!1+set}" ]; then echo "${!1}"; else setting_in_file "$1"; fi; }

# Prints a setting from .env as compose reads it: the last line of the name, with quotes or up to a comment. Compose also
# replaces variables and escape sequences in it.
setting_in_file() {
    awk -v name="$1" '
        match($0, "^[ \t]*(export[ \t]+)?" name "[ \t]*[=:][ \t]*") {
            value = substr($0, RLENGTH + 1)
            quote = substr(value, 1, 1)
            if (quote == "\"" || quote == "\047") {
                value = substr(value, 2)
                sub(quote ".*", "", value)
            } else {
                sub(/ #.*/, "", value)
                sub(/[ \t\r]+$/, "", value)
            }
        }
        END { print value }' .env
}

# Prints the address that reaches the published ports from this machine.
host() {
    case $(setting BIND_ADDRESS) in
    '' | 0.0.0.0) echo 127.0.0.1 ;;
    '[::]') echo '[::1]' ;;
    *) setting BIND_ADDRESS ;;
    esac
}
