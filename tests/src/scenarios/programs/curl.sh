# curl: closed ports, both families at once, a source port, a source address, and time that runs out.
mkdir www
python3 -m http.server 8000 --bind 127.0.0.1 --directory www 2> http.log &
server=$!
await 8000
get() { curl -sS -o /dev/null "$@"; }
get http://127.0.0.1:8000/
# ::1 is tried first and refuses.
get http://localhost:8000/
! get http://127.0.0.1:9/
! get http://localhost:9/
get --local-port 40100-40110 http://127.0.0.1:8000/
get --interface 127.0.0.3 http://127.0.0.1:8000/
get --interface 127.0.0.3 --local-port 40200 http://127.0.0.1:8000/
# An address that no interface has, and a network without a route.
! get --interface 192.0.2.1 http://127.0.0.1:8000/
! get http://192.0.2.1:8000/
! get 'http://[2001:db8::1]:8000/'
# Two at once over one command.
get --parallel http://127.0.0.1:8000/ -o /dev/null http://127.0.0.1:8000/
# The port is privileged, and nobody is root.
chroot --userspec=nobody:nogroup / curl -sS -o /dev/null --local-port 1000-1001 http://127.0.0.1:8000/ && exit 1
kill $server
wait $server || true
