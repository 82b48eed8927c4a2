//! lapin as an application uses it; the server is in AMQP_ADDR.

use futures_util::StreamExt;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Error,
    ErrorKind, ExchangeKind, Result,
};

use crate::{show, step};

pub async fn run() -> Result<()> {
    let address = std::env::var("AMQP_ADDR").expect("AMQP_ADDR is set");
    let uri = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    routed(&channel).await?;
    consumed(&connection, &channel).await?;
    dead(&channel).await?;
    transaction(&connection, &channel).await?;
    refused(&connection, &channel).await?;
    step("a new secret, and the end");
    connection
        .update_secret("other".into(), "it was old".into())
        .await?;
    connection.close(200, "bye".into()).await?;
    show(connection.status().connected());
    Ok(())
}

fn arguments(list: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in list {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn queue(channel: &Channel, name: &str, list: &[(&str, AMQPValue)]) -> Result<()> {
    channel
        .queue_delete(name.into(), QueueDeleteOptions::default())
        .await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let queue = channel
        .queue_declare(name.into(), options, arguments(list))
        .await?;
    show((
        queue.name().as_str(),
        queue.message_count(),
        queue.consumer_count(),
    ));
    Ok(())
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &str) -> Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(body.into())
        .with_headers(arguments(&[("kind", text("lapin"))]));
    let sent = channel
        .basic_publish(
            exchange.into(),
            key.into(),
            options,
            body.as_bytes(),
            properties,
        )
        .await?;
    sent.await
}

fn told(confirmation: Confirmation) {
    match confirmation {
        Confirmation::Ack(None) => show("ack"),
        Confirmation::Ack(Some(back)) => show((
            "returned",
            back.reply_code,
            back.reply_text.as_str(),
            String::from_utf8_lossy(&back.delivery.data),
        )),
        other => show(other),
    }
}

async fn routed(channel: &Channel) -> Result<()> {
    step("a topic exchange behind a fanout");
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    for (name, kind) in [
        ("lapin.front", ExchangeKind::Fanout),
        ("lapin.back", ExchangeKind::Topic),
    ] {
        channel
            .exchange_declare(name.into(), kind, durable, FieldTable::default())
            .await?;
    }
    channel
        .exchange_bind(
            "lapin.back".into(),
            "lapin.front".into(),
            "".into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    queue(channel, "lapin.q", &[("x-queue-type", text("quorum"))]).await?;
    channel
        .queue_bind(
            "lapin.q".into(),
            "lapin.back".into(),
            "a.*".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    told(publish(channel, "lapin.front", "a.b", "routed").await?);
    told(publish(channel, "lapin.front", "b.b", "not routed").await?);
    let message = get(channel, "lapin.q").await?;
    let headers = message
        .properties
        .headers()
        .as_ref()
        .map(|headers| format!("{:?}", headers.inner().get("kind")));
    show((
        message.exchange.as_str(),
        message.routing_key.as_str(),
        message.redelivered,
        headers,
    ));
    channel
        .basic_ack(message.delivery_tag, BasicAckOptions::default())
        .await
}

async fn get(channel: &Channel, queue: &str) -> Result<Delivery> {
    for _ in 0..1000 {
        let found = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await?;
        if let Some(BasicGetMessage { delivery, .. }) = found {
            return Ok(delivery);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nothing came to {queue}");
}

async fn next(consumer: &mut Consumer) -> Result<Delivery> {
    consumer.next().await.expect("a delivery")
}

async fn consumed(connection: &Connection, channel: &Channel) -> Result<()> {
    step("consumed, with a prefetch of two");
    queue(channel, "lapin.work", &[]).await?;
    for index in 0..5 {
        told(publish(channel, "", "lapin.work", &format!("job {index}")).await?);
    }
    let taking = connection.create_channel().await?;
    taking.basic_qos(2, BasicQosOptions::default()).await?;
    let mut consumer = taking
        .basic_consume(
            "lapin.work".into(),
            "worker".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let (first, second) = (next(&mut consumer).await?, next(&mut consumer).await?);
    show((first.delivery_tag, second.delivery_tag));
    second.ack(BasicAckOptions { multiple: true }).await?;
    let third = next(&mut consumer).await?;
    third
        .nack(BasicNackOptions {
            requeue: true,
            ..Default::default()
        })
        .await?;
    let mut again = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut consumer).await?;
        again.push((
            String::from_utf8_lossy(&delivery.data).into_owned(),
            delivery.redelivered,
        ));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    again.sort();
    show(again);
    step("the queue of a consumer goes");
    channel
        .queue_delete("lapin.work".into(), QueueDeleteOptions::default())
        .await?;
    show(consumer.next().await.is_none());
    taking.close(200, "done".into()).await
}

async fn dead(channel: &Channel) -> Result<()> {
    step("rejected, and dead-lettered");
    queue(channel, "lapin.dead", &[]).await?;
    let to = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("lapin.dead")),
    ];
    queue(channel, "lapin.doomed", &to).await?;
    told(publish(channel, "", "lapin.doomed", "doomed").await?);
    let message = get(channel, "lapin.doomed").await?;
    message
        .reject(BasicRejectOptions { requeue: false })
        .await?;
    let message = get(channel, "lapin.dead").await?;
    let headers = message.properties.headers().clone().unwrap_or_default();
    show((
        String::from_utf8_lossy(&message.data),
        headers.inner().get("x-first-death-reason"),
    ));
    message.ack(BasicAckOptions::default()).await?;
    Ok(())
}

async fn transaction(connection: &Connection, channel: &Channel) -> Result<()> {
    step("a transaction, rolled back and committed");
    let tx = connection.create_channel().await?;
    tx.tx_select().await?;
    let counted = async || {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let queue = channel
            .queue_declare("lapin.dead".into(), options, FieldTable::default())
            .await?;
        Ok::<u32, Error>(queue.message_count())
    };
    for commit in [false, true] {
        let _ = tx
            .basic_publish(
                "".into(),
                "lapin.dead".into(),
                BasicPublishOptions::default(),
                b"tx",
                BasicProperties::default(),
            )
            .await?;
        let before = counted().await?;
        if commit {
            tx.tx_commit().await?;
        } else {
            tx.tx_rollback().await?;
        }
        show((before, counted().await?));
    }
    tx.close(200, "done".into()).await
}

async fn refused(connection: &Connection, channel: &Channel) -> Result<()> {
    step("what is refused closes its channel");
    let other = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let gone = other
        .queue_declare("lapin.nowhere".into(), options, FieldTable::default())
        .await;
    shown(gone.map(|_| ()));
    let other = connection.create_channel().await?;
    let options = QueueDeclareOptions::default();
    let unequal = other
        .queue_declare("lapin.dead".into(), options, FieldTable::default())
        .await;
    shown(unequal.map(|_| ()));
    show((
        connection.status().connected(),
        channel.status().connected(),
    ));
    Ok(())
}

fn shown(result: Result<()>) {
    match result.map_err(|error| error.kind().clone()) {
        Err(ErrorKind::ProtocolError(error)) => {
            show((error.get_id(), error.get_message().as_str()))
        }
        other => panic!("not refused by the server: {other:?}"),
    }
}
