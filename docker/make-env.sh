#!/bin/sh
# Print the settings of compose.yaml: .env.example, with a random value for each empty one, and with
# this user as the one who owns the files.
#
#   (umask 077; sh docker/make-env.sh > docker/.env)
set -eu
while IFS= read -r line; do
    case "$line" in
        FILES_USER=*) printf 'FILES_USER=%s:%s\n' "$(id -u)" "$(id -g)" ;;
        [A-Z]*=) printf '%s%s\n' "$line" "$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')" ;;
        *) printf '%s\n' "$line" ;;
    esac
done < "$(dirname "$0")/.env.example"
