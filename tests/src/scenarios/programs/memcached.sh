# memcached on TCP and UDP, with the shell as a client.
memcached -u nobody -l 127.0.0.1,::1 -p 11211 -U 11211 -t 2 &
server=$!
await 11211
ask() {
    local answer
    exec 3<> "/dev/tcp/$1/11211"
    printf '%s\r\n' "$2" >&3
    read -r answer <&3
    exec 3>&-
    [[ $answer == "$3"* ]]
}
ask 127.0.0.1 version VERSION
ask ::1 version VERSION
ask localhost 'get nothing' END
# A frame header of eight bytes comes first: request 1, datagram 0 of 1.
exec 3<> /dev/udp/127.0.0.1/11211
printf '\0\1\0\0\0\1\0\0version\r\n' >&3
head -c 1 <&3 > answer
exec 3>&-
kill $server
wait $server || true
