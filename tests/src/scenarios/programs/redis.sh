# Redis with a replica, and its own client.
redis-server --port 6379 --save '' --dir /tmp > redis.log &
await 6379
redis-server --port 6380 --save '' --dir /tmp --replicaof 127.0.0.1 6379 > replica.log &
await 6380
[[ $(redis-cli set greeting hello) == OK ]]
replicated() { [[ $(redis-cli -p 6380 get greeting) == hello ]]; }
until_ok replicated
[[ $(redis-cli -h localhost ping) == PONG ]]
# The port is taken: the second server gives up.
! redis-server --port 6379 --save '' --dir /tmp > second.log
# Nobody listens there.
! redis-cli -p 6390 ping
redis-cli -p 6380 shutdown nosave
redis-cli shutdown nosave
wait
