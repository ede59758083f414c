# node: an http server, and clients of both kinds that it has.
cat > server.js <<'END'
const http = require('http');
const net = require('net');
const dgram = require('dgram');

const server = http.createServer((request, response) => response.end('served'));
const get = (options) => new Promise((resolve, reject) =>
    http.get(options, (response) => {
        let text = '';
        response.on('data', (part) => text += part);
        response.on('end', () => resolve(text));
    }).on('error', reject));
const listening = (one, ...where) => new Promise((resolve, reject) => {
    one.once('error', reject);
    one.listen(...where, () => resolve(one));
});
const failed = (promise, code) => promise.then(
    () => { throw new Error('no failure'); },
    (error) => { if (error.code !== code) throw error; });

(async () => {
    await listening(server, 3000);
    for (const host of ['127.0.0.1', '::1', 'localhost'])
        if (await get({ host, port: 3000, agent: false }) !== 'served') throw new Error(host);
    const answer = await fetch('http://127.0.0.1:3000/');
    if (await answer.text() !== 'served') throw new Error('fetch');
    await failed(listening(net.createServer(), 3000), 'EADDRINUSE');
    await failed(get({ host: '127.0.0.1', port: 9, agent: false }), 'ECONNREFUSED');
    const other = await listening(net.createServer(), 0, '127.0.0.1');
    other.close();
    await new Promise((resolve) => {
        const echo = dgram.createSocket('udp4');
        const client = dgram.createSocket('udp4');
        echo.on('message', (data, from) => echo.send(data, from.port, from.address));
        client.on('message', () => { echo.close(); client.close(resolve); });
        echo.bind(3001, '127.0.0.1', () => client.send('x', 3001, '127.0.0.1'));
    });
    process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
END
node server.js
