#!/bin/sh
# Print an ACL file for Redis: the rules of users.acl, with the hashes of the passwords.
#
#   PRODUCER_PASSWORD=… KEEPER_PASSWORD=… WORKER_PASSWORD=… sh deploy/redis/make-users.sh > users.acl
#
# A password is in PRODUCER_PASSWORD, or in the file that PRODUCER_PASSWORD_FILE names; likewise for
# keeper, worker, flower, keda, metrics and admin. A user without a password is off, and so is `default`.
set -eu
template="${1:-$(dirname "$0")/users.acl}"

password_of() {
    variable="$(echo "$1" | tr '[:lower:]' '[:upper:]')_PASSWORD"
    eval "password=\${$variable:-}; file=\${${variable}_FILE:-}"
    if [ -z "$password" ] && [ -n "$file" ]; then
        password="$(cat "$file")" || exit 2 # cat has said why
    fi
    if [ -n "$password" ] && [ "${#password}" -lt 16 ]; then
        echo "make-users: $variable is shorter than 16 characters: openssl rand -hex 24 makes one." >&2
        exit 2
    fi
    printf '%s' "$password"
}

# A user is one line in Redis's file, which may have no comments.
users="$(sed -e '/^#/d' -e '/^$/d' -e ':join' -e '/\\$/{' -e 'N' -e 's/ *\\\n */ /' -e 'bjoin' -e '}' "$template")"
if [ -z "$users" ]; then
    echo "make-users: $template has no users: fetch or copy it again." >&2
    exit 2
fi

lines="$(echo "$users" | while read -r _ user rules; do
    password="$(password_of "$user")" || exit 2
    if [ -n "$password" ]; then
        hash="$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)"
        echo "user $user on #$hash $rules"
    else
        echo "user $user off $rules"
    fi
done)" || exit 2

# All at the end, together or not at all: without the first line Redis lets everybody in.
printf '%s\n' "user default off" "$lines"
