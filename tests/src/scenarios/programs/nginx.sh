# nginx: a master with two workers; reloaded, tested while it runs, replaced by a new executable, ended.
mkdir -p /var/log/nginx /var/lib/nginx www
echo served > www/index.html
cat > nginx.conf <<END
user nobody nogroup;
worker_processes 2;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    server { listen 127.0.0.1:8080; listen [::]:8080 ipv6only=on; root /tmp/www; }
    server { listen 127.0.0.1:8081 reuseport; location / { proxy_pass http://127.0.0.1:8080; } }
    server { listen 127.0.0.1:8082; location / { proxy_pass http://127.0.0.1:9; } }
}
END
/usr/sbin/nginx -c /tmp/nginx.conf
await 8080
[[ $(curl -sS http://127.0.0.1:8080/) == served ]]
[[ $(curl -sS 'http://[::1]:8080/') == served ]]
[[ $(curl -sS http://localhost:8081/) == served ]]
# Nobody listens behind this one: nginx answers 502.
[[ $(curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:8082/) == 502 ]]

workers() { echo $(</proc/$(</run/nginx.pid)/task/$(</run/nginx.pid)/children); }
before=$(workers)
nginx -c /tmp/nginx.conf -s reload
others() { [[ " $(workers) " != *" ${before%% *} "* ]]; }
until_ok others
[[ $(curl -sS http://localhost:8081/) == served ]]

# Its sockets are there: a second one gets none, and a test minds that not.
nginx -c /tmp/nginx.conf -t

# The new executable inherits the sockets, and the old one goes.
old=$(</run/nginx.pid)
kill -USR2 "$old"
# Read once: for a moment there is no such file, and then an empty one.
renewed() {
    local new
    new=$(cat /run/nginx.pid 2>/dev/null) && [[ -n $new && $new != "$old" ]]
}
until_ok renewed
kill -QUIT "$old"
gone() { ! kill -0 "$old"; }
until_ok gone
[[ $(curl -sS http://127.0.0.1:8081/) == served ]]
nginx -c /tmp/nginx.conf -s stop
await_end 8080
