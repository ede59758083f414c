# Python: http.server with its threads, asyncio as server and client, and what fails.
mkdir www
python3 -m http.server 8000 --directory www 2> http.log &
server=$!
await 8000
python3 - <<'END'
import urllib.request
for name in ("127.0.0.1", "localhost"):
    assert urllib.request.urlopen(f"http://{name}:8000/").status == 200
END
# It is told in which order IPv6 and IPv4 are taken, and that the port is taken already.
! python3 -m http.server 8000 --bind 127.0.0.1 2> second.log
kill $server
wait $server || true
python3 - <<'END'
import asyncio

async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, address):
        self.transport.sendto(data, address)

class Ask(asyncio.DatagramProtocol):
    def __init__(self, done):
        self.done = done
    def connection_made(self, transport):
        transport.sendto(b"ping")
    def datagram_received(self, data, address):
        self.done.set_result(data)

async def ask(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"hello\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer

async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(serve, "localhost", 8001)
    automatic = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = automatic.sockets[0].getsockname()[1]
    answers = await asyncio.gather(*(ask("127.0.0.1", 8001) for _ in range(5)),
                                   ask("::1", 8001), ask("localhost", port))
    assert answers == [b"HELLO\n"] * 7, answers
    for host, port in (("127.0.0.1", 9), ("::1", 9)):
        try:
            await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            continue
        raise AssertionError("not refused")
    try:
        await asyncio.start_server(serve, "127.0.0.1", 8001)
    except OSError as error:
        assert error.errno == 98, error
    else:
        raise AssertionError("not taken")
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 8002))
    done = loop.create_future()
    client, _ = await loop.create_datagram_endpoint(lambda: Ask(done), remote_addr=("127.0.0.1", 8002))
    assert await asyncio.wait_for(done, 10) == b"ping"
    for each in (client, transport, server, automatic):
        each.close()

asyncio.run(main())
END
# Datagrams without a connect, as with netcat or a logger: the first one takes a port.
python3 - <<'END'
import socket
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(("127.0.0.1", 8003))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3):
    sender.sendto(b"x", ("127.0.0.1", 8003))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.sendto(b"x", ("::1", 8003))
six.sendto(b"x", ("::1", 8003))
END
