use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use redis::aio::ConnectionManager;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, Client, Commands, RedisResult, Script, Value, pipe};

use crate::{address, show, step, until};

pub async fn run() -> RedisResult<()> {
    let (host, port) = address();
    for protocol in ["resp2", "resp3"] {
        let client = Client::open(format!("redis://{host}:{port}/0?protocol={protocol}"))?;
        tokio::task::spawn_blocking({
            let client = client.clone();
            move || blocking(&client, protocol)
        })
        .await
        .expect("no panic")?;
        multiplexed(&client, protocol).await?;
    }
    Ok(())
}

fn blocking(client: &Client, protocol: &str) -> RedisResult<()> {
    let mut c = client.get_connection()?;
    let () = redis::cmd("FLUSHALL").query(&mut c)?;
    step(&format!("redis-rs {protocol}"));
    let () = c.set_ex("k", "v", 60)?;
    show((
        c.get::<_, String>("k")?,
        c.get::<_, Option<String>>("none")?,
        c.exists::<_, bool>("k")?,
        c.mget::<_, Vec<Option<String>>>(&["k", "none"])?,
    ));
    step("hash");
    show((
        c.hset_multiple::<_, _, _, bool>("h", &[("a", "1"), ("b", "two")])?,
        c.hgetall::<_, BTreeMap<String, String>>("h")?,
        c.hincr::<_, _, _, f64>("h", "a", 1.5)?,
    ));
    step("list");
    show((
        c.rpush::<_, _, i64>("l", &[1, 2, 3])?,
        c.lrange::<_, Vec<i64>>("l", 0, -1)?,
        c.blpop::<_, Option<(String, i64)>>("l", 1.0)?,
        c.blpop::<_, Option<(String, i64)>>("none", 0.01)?,
    ));
    step("set");
    show((
        c.sadd::<_, _, i64>("s", &["a", "b"])?,
        c.smembers::<_, BTreeSet<String>>("s")?,
        c.sismember::<_, _, bool>("s", "a")?,
    ));
    step("sorted set");
    show((
        c.zadd_multiple::<_, _, _, i64>("z", &[(1.5, "a"), (2.0, "b")])?,
        c.zrange_withscores::<_, Vec<(String, f64)>>("z", 0, -1)?,
        c.zscore::<_, _, Option<f64>>("z", "a")?,
        c.zpopmin::<_, Vec<(String, f64)>>("z", 1)?,
    ));
    step("errors");
    show(
        c.lpush::<_, _, i64>("k", 1)
            .map_err(|error| (error.kind(), error.to_string())),
    );
    show(
        redis::cmd("NOPE")
            .query::<()>(&mut c)
            .map_err(|error| error.to_string()),
    );
    step("transaction");
    show(redis::transaction(&mut c, &["n"], |c, pipe| {
        let n: Option<i64> = c.get("n")?;
        pipe.set("n", n.unwrap_or(0) + 1)
            .ignore()
            .get("n")
            .query::<Option<(i64,)>>(c)
    })?);
    step("pipeline");
    let mut many = pipe();
    for i in 0..1000 {
        many.incr(format!("p:{}", i % 7), 1);
    }
    show(many.query::<Vec<i64>>(&mut c)?.iter().sum::<i64>());
    step("script");
    show(
        Script::new("return {redis.call('get', KEYS[1]), ARGV[1]}")
            .key("k")
            .arg(5)
            .invoke::<(String, i64)>(&mut c)?,
    );
    step("scan");
    let () = many_keys(&mut c)?;
    show(
        c.scan_match::<_, String>("scan:*")?
            .collect::<RedisResult<BTreeSet<String>>>()?
            .len(),
    );
    step("stream");
    show((
        c.xadd::<_, _, _, _, String>("st", "1-1", &[("f", "1")])?,
        c.xadd::<_, _, _, _, String>("st", "1-*", &[("f", "2")])?,
        c.xgroup_create::<_, _, _, String>("st", "g", "0")?,
    ));
    let options = StreamReadOptions::default()
        .group("g", "me")
        .count(1)
        .block(100);
    let read: Option<StreamReadReply> = c.xread_options(&["st"], &[">"], &options)?;
    let read = read.expect("an entry");
    show((
        &read.keys[0].key,
        &read.keys[0].ids[0].id,
        read.keys[0].ids[0].get::<String>("f"),
    ));
    show((
        c.xpending::<_, _, redis::streams::StreamPendingReply>("st", "g")?
            .count(),
        c.xack::<_, _, _, i64>("st", "g", &["1-1"])?,
    ));
    Ok(())
}

fn many_keys(c: &mut redis::Connection) -> RedisResult<()> {
    let mut many = pipe();
    for i in 0..500 {
        many.set(format!("scan:{i}"), i).ignore();
    }
    many.query(c)
}

async fn multiplexed(client: &Client, protocol: &str) -> RedisResult<()> {
    step("one connection for many tasks");
    let manager = ConnectionManager::new(client.clone()).await?;
    let mut tasks = Vec::new();
    for _ in 0..500 {
        let mut c = manager.clone();
        tasks.push(tokio::spawn(async move {
            AsyncCommands::incr::<_, _, i64>(&mut c, "tasks", 1).await
        }));
    }
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.insert(task.await.expect("no panic")?);
    }
    show(seen.len());

    step("connected again after the server drops it");
    let mut c = manager.clone();
    let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut c).await?;
    let mut other = client.get_multiplexed_async_connection().await?;
    let () = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("ID")
        .arg(id)
        .query_async(&mut other)
        .await?;
    until("connected again", async || {
        AsyncCommands::get::<_, i64>(&mut c, "tasks").await.is_ok()
    })
    .await;
    show(AsyncCommands::get::<_, i64>(&mut c, "tasks").await?);

    step("published");
    let mut pubsub = client.get_async_pubsub().await?;
    pubsub.subscribe("ch").await?;
    pubsub.psubscribe("c*").await?;
    show(AsyncCommands::publish::<_, _, i64>(&mut other, "ch", "hello").await?);
    let mut stream = pubsub.into_on_message();
    let mut got = BTreeSet::new();
    for _ in 0..2 {
        let message = stream.next().await.expect("a message");
        got.insert((
            message.get_channel_name().to_owned(),
            message.get_payload::<String>()?,
            message.from_pattern(),
        ));
    }
    show(got);
    step("a reply's own type");
    show(
        redis::cmd("HGETALL")
            .arg("none")
            .query_async::<Value>(&mut other)
            .await?,
    );
    show(
        redis::cmd("ZSCORE")
            .arg("z")
            .arg("b")
            .query_async::<Value>(&mut other)
            .await?,
    );
    show(protocol);
    Ok(())
}
