//! An interval of automatic ports, in one object: `docs/schema/churn-1.json`.

mod nat;

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{
    SCHEMA,
    object::{Object, key, string},
};
use crate::{
    churn::{
        causes::outlook,
        figures::{
            Failure, Figures, Flow, Group, GroupName, Half, Loss, Namespace, Pool, Scope, Use, Who,
        },
        forecast::Forecast,
        histogram::Percentiles,
    },
    errno,
    sink::clock::Clock,
};

/// The line; `seq`: its number, from 1.
#[must_use]
pub fn line(figures: &Figures, seq: u64) -> Vec<u8> {
    let mut clock = Clock::new(TimeZone::UTC);
    let mut out = Vec::new();
    Object::write(&mut out, |line| {
        line.word(key!("schema"), SCHEMA);
        line.number(key!("seq"), seq);
        line.time(key!("time"), &mut clock, figures.time.utc);
        line.number(key!("time_boot"), figures.time.boot);
        line.word(key!("record"), "churn");
        line.raw(key!("churn"), &without_nulls(body(figures)).to_string());
        let hidden = figures.nat.as_ref().is_some_and(|nat| nat.hidden.is_some());
        let nat = hidden.then_some("nat");
        let missing: Vec<_> = figures.unseen.iter().copied().chain(nat).collect();
        if !missing.is_empty() {
            line.list(key!("missing"), &missing, |out, path| {
                string(out, &format!("churn.{path}"));
            });
        }
    });
    out.push(b'\n');
    out
}

fn body(figures: &Figures) -> Value {
    let Figures {
        time: _,
        interval,
        watched,
        backend,
        namespaces,
        pools,
        pools_total,
        groups,
        groups_total,
        failures,
        failures_total,
        tail,
        loss,
        nat,
        unseen: _,
    } = figures;
    let seconds = interval.as_secs_f64();
    let sees = figures.unseen.is_empty();
    json!({
        "backend": backend.as_str(),
        "interval": nanos(*interval),
        "watched": nanos(*watched),
        "namespaces": namespaces.iter().map(|one| namespace(one, seconds)).collect::<Vec<_>>(),
        "pools": pools.iter().map(|one| pool(one, sees)).collect::<Vec<_>>(),
        "pools_total": pools_total,
        "groups": groups.iter().map(|one| group(one, sees)).collect::<Vec<_>>(),
        "groups_total": groups_total,
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        "failures_total": failures_total,
        "others": (*tail != Use::default()).then(|| used(tail, sees)),
        "lost": lost(loss),
        "nat": nat.as_ref().map(nat::body),
    })
}

/// Objects without what is not known.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .filter(|(_, value)| value.as_object().is_none_or(|fields| !fields.is_empty()))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        value => value,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A rate, to a thousandth.
fn rate(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}

fn range(range: &RangeInclusive<u16>) -> Value {
    json!([range.start(), range.end()])
}

fn namespace(one: &Namespace, seconds: f64) -> Value {
    let per_second = |count: u64| (seconds > 0.0).then(|| rate(count as f64 / seconds));
    json!({
        "netns": one.netns,
        "range": one.range.as_ref().map(range),
        "available": one.available,
        "reserved": one.reserved,
        "tw_reuse": one.tw_reuse,
        "autobind_reuse": one.autobind_reuse,
        "own_ranges": (!one.own_ranges.is_empty()).then(|| {
            one.own_ranges
                .iter()
                .map(|(own, held)| json!({"range": range(own), "held": held}))
                .collect::<Vec<_>>()
        }),
        "now": flow(&one.now),
        "per_second": {
            "taken": per_second(one.now.taken.sum()),
            "given": one.now.given.and_then(per_second),
        },
        "total": flow(&one.total),
        "held": one.held.map(|held| json!({
            "count": held,
            "odd": one.held_odd,
            "even": one.held_odd.map(|odd| held.saturating_sub(odd)),
            "waiting": one.waiting,
        })),
        "time_wait": one.time_wait,
        "held_for": one.held_for.as_ref().map(percentiles),
        "searched": one.searched.as_ref().map(percentiles),
    })
}

fn flow(flow: &Flow) -> Value {
    let Flow {
        taken,
        given,
        waited,
        ended,
        failed,
        odd,
    } = flow;
    json!({
        "taken": {
            "connect": taken.connect,
            "bind": taken.bind,
            "listen": taken.listen,
            // None are seen where none are seen given back.
            "udp": given.map(|_| taken.udp),
            "total": taken.sum(),
            "odd": odd,
        },
        "given": given,
        "time_wait": {"entered": waited, "left": ended},
        "failed": failed,
    })
}

fn percentiles(times: &Percentiles) -> Value {
    let Percentiles { p50, p90, p99 } = times;
    json!({"p50": nanos(*p50), "p90": nanos(*p90), "p99": nanos(*p99)})
}

fn used(one: &Use, sees: bool) -> Value {
    let seen = |count: u64| sees.then_some(count);
    json!({
        "held": seen(one.held),
        "waiting": seen(one.waiting),
        "taken": one.taken,
        "given": seen(one.given),
        "waited": seen(one.waited),
        "failed": one.failed,
    })
}

/// Joins the fields of objects.
fn joined(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut all = Map::new();
    for part in parts {
        if let Value::Object(fields) = part {
            all.extend(fields);
        }
    }
    Value::Object(all)
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

fn identity(pool: &Pool) -> Value {
    json!({
        "network": {
            "transport": pool.transport.as_str(),
            "type": family(pool.local),
            "local": {"address": pool.local.to_string()},
            "peer": pool.peer.map(|(address, port)| json!({
                "address": address.to_string(),
                "port": port,
            })),
        },
        "socket": {"netns": pool.netns},
        "scope": match pool.scope {
            Scope::Address => "address",
            Scope::Tuple => "tuple",
        },
        "own_range": pool.own_range.as_ref().map(range),
        "available": pool.available,
    })
}

fn pool(pool: &Pool, sees: bool) -> Value {
    joined([
        identity(pool),
        json!({
            "used": sees.then(|| pool.used()),
            "beside": sees.then_some(pool.beside),
        }),
        used(&pool.total, sees),
        json!({
            "halves": pool.halves.as_ref().map(|halves| json!({
                "odd": half(&halves.odd),
                "even": half(&halves.even),
            })),
            "processes": pool.shares.iter().map(|(one, part)| joined([who(one), used(part, sees)])).collect::<Vec<_>>(),
            "processes_total": pool.processes,
            "forecast": pool.forecast.as_ref().map(forecast),
            "message": outlook(pool),
        }),
    ])
}

fn half(half: &Half) -> Value {
    json!({"held": half.held, "available": half.available, "share": half.share().map(rate)})
}

fn who(who: &Who) -> Value {
    let Who {
        pid,
        comm,
        container,
    } = who;
    json!({
        "process": {"pid": pid, "comm": comm},
        "container": {"id": container},
    })
}

fn forecast(forecast: &Forecast) -> Value {
    let Forecast {
        rate: now,
        needed,
        available: _,
        fails_at,
        runs_out,
    } = forecast;
    json!({
        "rate": rate(*now),
        "needed": rate(*needed),
        "fails_at": fails_at.map(rate),
        "fails": forecast.fails(),
        "runs_out": runs_out.map(nanos),
    })
}

fn group(group: &Group, sees: bool) -> Value {
    let name = match &group.name {
        GroupName::Process(one, processes) => {
            joined([who(one), json!({"processes_total": processes})])
        }
        GroupName::Destination(peer) => {
            json!({"network": {"peer": peer.map(|(address, port)| json!({
                "address": address.to_string(),
                "port": port,
            }))}})
        }
        GroupName::Source(address) => {
            json!({"network": {"local": {"address": address.to_string()}}})
        }
        GroupName::Netns(netns) => json!({"socket": {"netns": netns}}),
        GroupName::Container(id) => json!({"container": {"id": id}}),
    };
    joined([name, used(&group.total, sees)])
}

fn failure(failure: &Failure) -> Value {
    let Failure {
        pool,
        who: one,
        errno: code,
        now,
        total,
        cause,
    } = failure;
    joined([
        identity(pool),
        who(one),
        json!({
            "error": {"type": errno::name(*code), "code": code.0},
            "now": now,
            "total": total,
            "message": cause.message,
            "hint": cause.hint,
        }),
    ])
}

fn lost(loss: &Loss) -> Value {
    let Loss {
        forgotten,
        skipped,
        looks,
        corrected,
        looked,
    } = loss;
    json!({
        "forgotten": forgotten,
        "skipped": skipped,
        "looks": looks,
        "corrected": corrected,
        "looked": looked,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{sample, sink::schema};

    #[test]
    fn lines_are_as_the_schema_says() {
        let mut published: Value =
            serde_json::from_str(include_str!("../../../../docs/schema/churn-1.json")).unwrap();
        let loose = schema::validator(&published);
        schema::close(&mut published);
        let strict = schema::validator(&published);
        let mut text = String::new();
        for (at, figures) in sample::churn::figures().iter().enumerate() {
            let line = String::from_utf8(line(figures, at as u64 + 1)).unwrap();
            let value: Value = serde_json::from_str(&line).unwrap();
            for validator in [&loose, &strict] {
                let wrong: Vec<_> = validator
                    .iter_errors(&value)
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert!(wrong.is_empty(), "{wrong:?}: {line}");
            }
            text += &line;
        }
        insta::assert_snapshot!(text);
    }
}
