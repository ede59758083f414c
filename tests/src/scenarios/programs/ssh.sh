# sshd with a configuration of its own, commands by key, and forwarded ports both ways.
mkdir -p -m 755 /run/sshd
mkdir -m 700 keys
ssh-keygen -q -t ed25519 -N '' -f keys/host
ssh-keygen -q -t ed25519 -N '' -f keys/user
mkdir -m 700 /root/.ssh
cat keys/user.pub > /root/.ssh/authorized_keys
cat > sshd_config <<END
Port 2222
ListenAddress 127.0.0.1
ListenAddress ::1
HostKey /tmp/keys/host
PidFile /run/sshd.pid
UsePAM no
PasswordAuthentication no
StrictModes no
AuthorizedKeysFile /root/.ssh/authorized_keys
END
/usr/sbin/sshd -f /tmp/sshd_config -E sshd.log
await 2222
ssh=(ssh -F none -p 2222 -i keys/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
    -o LogLevel=ERROR -o BatchMode=yes)
[[ $("${ssh[@]}" root@127.0.0.1 echo there) == there ]]
[[ $("${ssh[@]}" root@localhost echo there) == there ]]
# Nobody listens there, and a port to forward that is taken.
! ssh -F none -p 2223 -o BatchMode=yes root@127.0.0.1 true 2> refused.log
! "${ssh[@]}" -o ExitOnForwardFailure=yes -L 127.0.0.1:2222:127.0.0.1:80 -N root@127.0.0.1 2> taken.log

python3 -m http.server 8000 --bind 127.0.0.1 2> http.log &
server=$!
await 8000
"${ssh[@]}" -o ExitOnForwardFailure=yes -N -L 8001:127.0.0.1:8000 -R 8002:localhost:8000 -D 127.0.0.1:8003 root@127.0.0.1 &
tunnel=$!
await 8001
await 8002
await 8003
curl -sS -o /dev/null http://127.0.0.1:8001/
curl -sS -o /dev/null http://127.0.0.1:8002/
curl -sS -o /dev/null --proxy socks5h://127.0.0.1:8003 http://localhost:8000/
! curl -sS -o /dev/null --proxy socks5h://127.0.0.1:8003 http://localhost:9/ 2> unreached.log
kill $tunnel $server
wait $tunnel $server || true
kill "$(</run/sshd.pid)"
await_end 2222
