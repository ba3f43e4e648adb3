#!/bin/sh
# Makes what compose.yaml needs, once: passwords, the files that hold them, and places for keys, patterns and store.toml.
#
#   compose_init.sh [FOLDER]      what is there already stays as it is
#
# Files belong to whom the containers run as, and nobody else reads them: to you or, when root calls this, to user
# 10001. Needs no Python and no engine.
set -eu
umask 077

cd "$(dirname "$0")/.."
folder=${1:-patrol-compose}
owner=$(id -u):$(id -g)
[ "$(id -u)" != 0 ] || owner=${RUN_AS:-10001:10001}

# keep FILE CONTENT: unless the file is there; whole, or not at all.
keep() {
    [ ! -e "$1" ] || return 0
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}

mkdir -p "$folder/keys" "$folder/patterns" "$folder/store"
secrets=$folder/secrets
scripts/server_secrets.sh "$secrets"
keep "$secrets/database_url" "postgresql://patrol:$(cat "$secrets/database_password")@postgres/patrol"
keep "$secrets/broker_url" "redis://patrol:$(cat "$secrets/redis_password")@redis:6379/0"
keep "$secrets/smtp_url" "smtp://mail:8025"
keep "$folder/patrol.env" "# Settings of Patrol's processes, one a line; docs/settings.md explains each. Afterwards: docker compose up --detach
#PATROL_PUBLIC_URL=https://patrol.you.example
#PATROL_ISSUER_NAME=You
#PATROL_MAIL_FROM=Security <security@you.example>
#PATROL_OPERATOR_EMAIL=security@you.example
#PATROL_GITHUB_HOOK_REPOSITORIES=you/*"
[ "$(id -u)" != 0 ] || chown -R "$owner" "$folder"

if [ "$folder" = patrol-compose ]; then
    keep .env "# Read by docker compose. RUN_AS: whom the containers run as; the owner of patrol-compose.
RUN_AS=$owner
# The mail catcher, for trying things out. Before real use: your mail server into
# patrol-compose/secrets/smtp_url, and this line away.
COMPOSE_PROFILES=demo"
fi
echo "$folder holds what the containers need; they run as $owner."
