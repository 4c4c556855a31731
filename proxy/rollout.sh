#!/bin/sh
# Replaces the API containers of docker-compose.yml one by one, without a failed request:
#
#   docker compose build && make rollout
#
# A container first leaves nginx's upstream and answers its open requests. Then compose stops it with SIGTERM and starts the
# new one, which joins the upstream when it is healthy. If one does not get healthy it stays marked `down`, the other one
# serves, and the script ends with an error; the next run begins with the one that is down.
set -eu
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
upstream=proxy/upstream.conf

in_proxy() {
    "$docker" compose exec -T proxy "$@"
}

# Written in place, the file keeps its mode; nginx reads it at a reload only.
edit() {
    changed=$(sed "$1" "$upstream")
    printf '%s\n' "$changed" > "$upstream"
}

reload() {
    # nginx would ignore a reload of a broken configuration, without an error.
    in_proxy nginx -q -e stderr -p /tmp -c /etc/match/nginx.conf -t
    in_proxy nginx -e stderr -p /tmp -c /etc/match/nginx.conf -s reload
    sleep 1
    # Processes of the old configuration still send requests to its servers, within worker_shutdown_timeout.
    while in_proxy pgrep -f 'worker process is shutting down' > /dev/null; do
        sleep 1
    done
}

servers=$(sed -n 's/^server \([a-z0-9-]*\):.* down;$/\1/p' "$upstream"
          sed -n '/ down;$/d; s/^server \([a-z0-9-]*\):.*/\1/p' "$upstream")
for server in $servers; do
    echo "replacing $server"
    edit "/^server $server:/{s/ down;\$/;/;s/;\$/ down;/;}"
    reload
    "$docker" compose up --detach --no-deps --force-recreate --wait "$server"
    edit "/^server $server:/s/ down;\$/;/"
    reload
done
