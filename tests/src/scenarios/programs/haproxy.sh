# haproxy: a master with a worker, before two servers of which one is down; reloaded, ended.
mkdir -p /run/haproxy
cat > haproxy.cfg <<END
global
    master-worker
    pidfile /run/haproxy.pid
    nbthread 2
    log stdout format raw local0
defaults
    mode tcp
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend web
    bind 127.0.0.1:8000
    bind :::8001 v6only
    default_backend servers
backend servers
    option redispatch
    server up 127.0.0.1:8080 check inter 200
    server down 127.0.0.1:9 check inter 200
END
python3 -m http.server 8080 --bind 127.0.0.1 > http.log 2>&1 &
server=$!
await 8080
haproxy -W -f haproxy.cfg > haproxy.log 2>&1 &
master=$!
await 8000
answered() { curl -sS -o /dev/null "$1"; }
until_ok answered http://127.0.0.1:8000/
for _ in 1 2 3; do answered http://127.0.0.1:8000/; done
until_ok answered 'http://[::1]:8001/'
before=$(<haproxy.log)
kill -USR2 $master
again() { local now; now=$(<haproxy.log); [[ ${now#"$before"} == *'Loading success'* ]]; }
until_ok again
until_ok answered http://127.0.0.1:8000/
kill -TERM $master
wait $master || true
kill $server
wait $server || true
