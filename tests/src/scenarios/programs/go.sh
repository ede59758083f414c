# A Go server. Its listeners are MPTCP sockets, where the kernel has them, if its module asks for Go 1.24 or
# is told to; this one asks for an older Go.
prometheus-node-exporter --web.listen-address 127.0.0.1:9100 --web.listen-address '[::1]:9101' \
    --collector.disable-defaults --collector.time 2> exporter.log &
server=$!
await 9100
await 9101
curl -sS -o /dev/null http://127.0.0.1:9100/metrics
curl -sS -o /dev/null 'http://[::1]:9101/metrics'
kill $server
wait $server || true
await_end 9100
GODEBUG=multipathtcp=1 prometheus-node-exporter --web.listen-address 127.0.0.1:9100 --collector.disable-defaults \
    --collector.time 2> multipath.log &
server=$!
await 9100
curl -sS -o /dev/null http://127.0.0.1:9100/metrics
! prometheus-node-exporter --web.listen-address 127.0.0.1:9100 --collector.disable-defaults --collector.time 2> second.log
kill $server
wait $server || true
