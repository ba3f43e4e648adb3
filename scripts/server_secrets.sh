#!/bin/sh
# Passwords of a PostgreSQL and a Redis of Patrol's own, and the Redis configuration that knows one of them by its
# digest alone: into FOLDER, once, for their owner only.
#
#   server_secrets.sh FOLDER
set -eu
umask 077

folder=${1:?usage: server_secrets.sh FOLDER}
mkdir -p "$folder"

keep() {
    [ ! -e "$folder/$1" ] || return 0
    printf '%s\n' "$2" >"$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}

for name in database_admin_password database_password redis_password; do
    keep "$name" "$(od -An -N 32 -tx1 /dev/urandom | tr -d ' \n')"
done
digest=$(tr -d '\n' <"$folder/redis_password" | sha256sum | cut -d' ' -f1)
# It only wakes: it keeps nothing. Who does not sign in may ask whether it is there. The user's rules are those of
# docs/operating.md, which says why.
keep redis.conf "bind * -::*
protected-mode no
save \"\"
appendonly no
maxmemory 128mb
maxmemory-policy volatile-lru
user default on nopass resetkeys resetchannels -@all +ping
user patrol on #$digest resetkeys ~patrol:* resetchannels -@all +ping +select +multi +exec +watch +unwatch +brpop +lpush +rpush +llen +hset +hget +hdel +zadd +zrem +zrange +sadd +set +get +del +evalsha +script|load +mget +scan +unlink"
