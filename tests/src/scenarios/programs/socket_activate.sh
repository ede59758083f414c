# systemd-socket-activate: it listens, and hands the connection or the socket to a program.
ask() {
    local answer
    exec 3<> "/dev/tcp/$1/$2"
    echo hello >&3
    read -r answer <&3
    exec 3>&-
    [[ $answer == hello ]]
}
systemd-socket-activate -l 127.0.0.1:8000 --accept --inetd cat 2> inetd.log &
server=$!
await 8000
ask 127.0.0.1 8000
ask localhost 8000
kill $server
wait $server || true

cat > activated.py <<'END'
import socket
server = socket.socket(fileno=3)
for _ in range(2):
    one, _ = server.accept()
    one.sendall(one.recv(100))
    one.close()
END
systemd-socket-activate -l 8001 python3 activated.py 2> activated.log &
server=$!
await 8001
ask ::1 8001
ask 127.0.0.1 8001
wait $server
systemd-socket-activate --datagram -l 127.0.0.1:8002 python3 -c '
import socket
print(socket.socket(fileno=3).recv(100))' > datagram.log 2>&1 &
server=$!
bound() { [[ $(</proc/net/udp) == *0100007F:1F42\ * ]]; }
until_ok bound
echo hello > /dev/udp/127.0.0.1/8002
wait $server
