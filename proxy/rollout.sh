#!/bin/sh
# Replaces the API containers of docker-compose.yml one by one, without a failed request:
#
#   docker compose build && make rollout
#
# nginx first removes a container from its upstream, and the container finishes its open requests. Then compose stops it with
# SIGTERM and starts the new one. A healthy new container returns to the upstream. An unhealthy one stays marked `down`: the
# other one serves all requests, and the script fails. The next run begins with the container that is down.
set -eu
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
upstream=proxy/upstream.conf

in_proxy() {
    "$docker" compose exec -T proxy "$@"
}

# Overwrites the file in place, so that it keeps its mode. nginx reads it only at a reload.
edit() {
    changed=$(sed "$1" "$upstream")
    printf '%s\n' "$changed" > "$upstream"
}

reload() {
    # nginx ignores a reload with an invalid configuration, without an error.
    in_proxy nginx -q -e stderr -p /tmp -c /etc/match/nginx.conf -t
    in_proxy nginx -e stderr -p /tmp -c /etc/match/nginx.conf -s reload
    sleep 1
    # Wait for the processes with the old configuration: they still send requests to its servers.
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
