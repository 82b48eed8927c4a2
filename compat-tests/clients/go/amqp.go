package main

import (
	"context"
	"fmt"
	"os"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

func amqp() {
	connection, err := amqp091.Dial("amqp://guest:guest@" + os.Getenv("AMQP_ADDR") + "/")
	check(err)
	defer connection.Close()
	channel, err := connection.Channel()
	check(err)

	step("declare and bind")
	check(channel.ExchangeDeclare("go.topic", "topic", true, false, false, false, nil))
	queue, err := channel.QueueDeclare("go.q", true, false, false, false, nil)
	fmt.Println(queue.Name, queue.Messages, queue.Consumers, err)
	check(channel.QueueBind("go.q", "a.*.c", "go.topic", false, nil))
	check(channel.QueueBind("go.q", "lazy.#", "go.topic", false, nil))

	step("publish with confirms")
	check(channel.Confirm(false))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i, key := range []string{"a.b.c", "lazy", "lazy.x.y", "nomatch"} {
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "go.topic", key, false, false,
			amqp091.Publishing{DeliveryMode: 2, ContentType: "text/plain", MessageId: fmt.Sprint(i), Body: []byte(key),
				Headers: amqp091.Table{"n": int32(i), "s": "x", "list": []any{"a", int64(2)}}})
		check(err)
		ok, err := confirmation.WaitContext(ctx)
		fmt.Println(key, confirmation.DeliveryTag, ok, err)
	}

	step("mandatory return comes before its confirm")
	returns := channel.NotifyReturn(make(chan amqp091.Return, 1))
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "go.topic", "nowhere", true, false, amqp091.Publishing{Body: []byte("back")})
	check(err)
	returned := <-returns
	fmt.Println(returned.ReplyCode, returned.ReplyText, returned.Exchange, returned.RoutingKey, string(returned.Body))
	ok, _ := confirmation.WaitContext(ctx)
	fmt.Println(ok)

	step("consume with prefetch and acknowledge")
	check(channel.Qos(1, 0, false))
	deliveries, err := channel.ConsumeWithContext(ctx, "go.q", "go-consumer", false, false, false, false, nil)
	check(err)
	for range 3 {
		delivery := <-deliveries
		fmt.Println(delivery.DeliveryTag, delivery.RoutingKey, delivery.Redelivered, delivery.MessageId, delivery.Headers["n"], delivery.Headers["list"], string(delivery.Body))
		check(delivery.Ack(false))
	}
	check(channel.Cancel("go-consumer", false))

	step("reject and requeue")
	check(channel.PublishWithContext(ctx, "", "go.q", false, false, amqp091.Publishing{Body: []byte("again")}))
	var delivery amqp091.Delivery
	for ok := false; !ok; {
		delivery, ok, err = channel.Get("go.q", false)
		check(err)
	}
	fmt.Println(delivery.Redelivered, string(delivery.Body))
	check(delivery.Nack(false, true))
	delivery, ok, err = channel.Get("go.q", false)
	fmt.Println(ok, err, delivery.Redelivered, string(delivery.Body))
	check(delivery.Ack(false))

	step("channel error")
	other, err := connection.Channel()
	check(err)
	_, err = other.QueueDeclarePassive("go.missing", true, false, false, false, nil)
	fmt.Println(err)
	_, err = channel.QueueDelete("go.q", false, false, false)
	fmt.Println(err)
	check(channel.ExchangeDelete("go.topic", false, false))
}
