# dig and the C library's resolver, with a server that answers everything with 192.0.2.7.
cat > server.py <<'END'
import socket, threading

def answer(query):
    end = query.index(b"\0", 12) + 5
    kind = query[end - 3]
    rest = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\7" if kind == 1 else b""
    count = b"\0\1" if rest else b"\0\0"
    return query[:2] + b"\x85\x80\0\1" + count + b"\0\0\0\0" + query[12:end] + rest

datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 53))
stream = socket.create_server(("127.0.0.1", 53))

def streams():
    while True:
        one, _ = stream.accept()
        length = int.from_bytes(one.recv(2), "big")
        said = answer(one.recv(length))
        one.sendall(len(said).to_bytes(2, "big") + said)
        one.close()

threading.Thread(target=streams, daemon=True).start()
while True:
    query, who = datagrams.recvfrom(4096)
    datagrams.sendto(answer(query), who)
END
python3 server.py &
server=$!
await 53
[[ $(dig +short @127.0.0.1 one.example A) == 192.0.2.7 ]]
[[ $(dig +short +tcp @127.0.0.1 two.example A) == 192.0.2.7 ]]
[[ $(dig +short -b 127.0.0.5#40300 @127.0.0.1 three.example A) == 192.0.2.7 ]]
! dig +short +time=1 +tries=1 @127.0.0.1 -p 9 four.example A > refused.log
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
[[ $(getent --no-addrconfig ahostsv4 five.example) == 192.0.2.7* ]]
[[ $(getent hosts six.example) == 192.0.2.7* ]]
# Both addresses at once, and a connect to what came.
! curl -sS --max-time 3 -o /dev/null http://seven.example/ 2> curl.log
kill $server
wait $server || true
