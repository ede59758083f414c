CREATE VIEW port_timeline AS
SELECT event.seq,
       strftime('%Y-%m-%dT%H:%M:%S', event.time / 1000000000, 'unixepoch')
           || printf('.%03dZ', event.time / 1000000 % 1000) AS time,
       call.transport,
       event.port,
       call.address,
       call.event,
       coalesce(call.error, call.outcome) AS result,
       nullif(process.pid, 0) AS pid,
       process.comm AS command,
       program.unit,
       program.container,
       call.netns,
       event.peer_address,
       event.peer_port,
       conflict.kind,
       conflict.reason,
       coalesce(conflict.detail ->> '$.conflict.message', warning.detail ->> '$.warning.message')
           AS message
  FROM event
  JOIN call ON call.id = event.call
  JOIN process ON process.id = event.process
  JOIN program ON program.id = process.program
  LEFT JOIN conflict ON conflict.seq = event.seq
  LEFT JOIN warning ON warning.seq = event.seq;

CREATE VIEW binds AS
SELECT seq, time, transport, address, port, event, result, pid, command, unit, container, netns,
       kind, reason, message
  FROM port_timeline
 WHERE event IN ('bind', 'listen', 'autobind');

CREATE VIEW connects AS
SELECT seq, time, transport, address, port, peer_address, peer_port, result, pid, command, unit,
       container, netns, kind, message
  FROM port_timeline
 WHERE event = 'connect';

-- Begins with the conflicts, which are few, and not with the events, as port_timeline does.
CREATE VIEW conflicts AS
SELECT event.seq,
       strftime('%Y-%m-%dT%H:%M:%S', event.time / 1000000000, 'unixepoch')
           || printf('.%03dZ', event.time / 1000000 % 1000) AS time,
       call.transport,
       call.address,
       event.port,
       call.event,
       call.error,
       nullif(process.pid, 0) AS pid,
       process.comm AS command,
       program.unit,
       conflict.kind,
       conflict.overlap,
       conflict.reason,
       holder.pid AS holder_pid,
       holder.comm AS holder_command,
       held_by.unit AS holder_unit,
       conflict.detail ->> '$.conflict.message' AS message,
       conflict.detail ->> '$.conflict.hint' AS hint
  FROM conflict
 CROSS JOIN event ON event.seq = conflict.seq
  JOIN call ON call.id = event.call
  JOIN process ON process.id = event.process
  JOIN program ON program.id = process.program
  LEFT JOIN process AS holder ON holder.id = conflict.holder
  LEFT JOIN program AS held_by ON held_by.id = holder.program;
