# A port forwarder as rootless containers have it (pasta, of Podman): it listens here as a user without
# privileges, and connects in a network namespace of its own.
chroot --userspec=alice:alice / python3 -c 'import os; os.unshare(os.CLONE_NEWUSER)' ||
    skip 'users may not make user namespaces on this machine'
mkdir -m 777 www
chroot --userspec=alice:alice / pasta --config-net --foreground --tcp-ports 127.0.0.1/8080:8000 --udp-ports none \
    --tcp-ns none --udp-ns none -- python3 -m http.server 8000 --directory /tmp/www 2> pasta.log &
forwarder=$!
await 8080
# It listens before the server does.
served() { curl -sS -o /dev/null http://127.0.0.1:8080/ 2> curl.log; }
until_ok served
served
# It ends with what it has started, which got its sockets too, and which is the first process of its
# namespace: nothing milder ends that.
kill -KILL $(</proc/$forwarder/task/$forwarder/children)
wait $forwarder || true
await_end 8080
