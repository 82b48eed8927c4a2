# Sidekiq (Debian's): jobs, two queues, bulk, scheduled jobs, retries, the dead set, a worker that is stopped with a job in its hands.
# The worker is Sidekiq's own program, which loads this file for the jobs.
require "sidekiq"
require "sidekiq/api"
require "sidekiq/scheduled"

HOST, PORT = ENV.fetch("RESP_ADDR").split(":")
Redis.silence_deprecations = true
URL = "redis://#{HOST}:#{PORT}/3".freeze
Sidekiq.configure_client { |config| config.redis = {url: URL, size: 2} }
Sidekiq.configure_server do |config|
  config.redis = {url: URL}
  config.logger.level = Logger::FATAL
  config.options[:poll_interval_average] = 0.1
  config.death_handlers << ->(job, error) { Sidekiq.redis { |r| r.rpush("deaths", "#{job["class"]}: #{error.message}") } }
end
# The poller waits up to five seconds before its first look, so that many processes do not start at once.
module Sidekiq::Scheduled
  class Poller
    def initial_wait; end
  end
end

class Mark
  include Sidekiq::Worker
  def perform(name) = Sidekiq.redis { |r| r.rpush("marks", name) }
end

class Critical < Mark
  sidekiq_options queue: "critical"
end

class Flaky
  include Sidekiq::Worker
  sidekiq_options retry: 3
  def perform(works_at)
    count = Sidekiq.redis { |r| r.incr("flaky") }
    raise "try #{count}" if count < works_at
    Sidekiq.redis { |r| r.rpush("marks", "worked at try #{count}") }
  end
end

class Dies
  include Sidekiq::Worker
  sidekiq_options retry: 1
  def perform(*) = raise(ArgumentError, "never works")
end

class Slow
  include Sidekiq::Worker
  def perform
    Sidekiq.redis { |r| r.rpush("slow", "started") }
    200.times { Sidekiq.redis { |r| r.exists?("let go") } ? break : sleep(0.05) }
    Sidekiq.redis { |r| r.rpush("slow", "ended") }
  end
end

return unless __FILE__ == $PROGRAM_NAME

$stdout.sync = true
def show(text, *values)
  puts "> #{text}", values.map(&:inspect)
end

def until_true(what, seconds = 20)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  until (value = yield)
    abort "never: #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.01
  end
  value
end

def redis(&block) = Sidekiq.redis(&block)
def marks(count)
  until_true("#{count} marks") { redis { |r| r.llen("marks") } == count }
  redis { |r| r.multi { |m| m.lrange("marks", 0, -1); m.del("marks") } }.first
end

at_exit { Process.kill("KILL", $worker) if $worker }
def start(concurrency)
  $worker = worker = Process.spawn({"RESP_ADDR" => ENV["RESP_ADDR"]}, "sidekiq", "-r", __FILE__, "-c", concurrency.to_s, "-q", "critical", "-q", "default", "-t", "1", out: File::NULL)
  until_true("a worker") { Sidekiq::ProcessSet.new.size == 1 }
  worker
end

def stop(worker)
  Process.kill("TERM", worker)
  Process.wait(worker)
  $worker = nil
  $?.exitstatus
end

def queues = Sidekiq::Queue.all.map { |q| [q.name, q.size] }

redis(&:flushall)
Mark.perform_async("one")
Mark.perform_async("two")
Critical.perform_async("first")
Mark.perform_bulk([["three"], ["four"]])
show "queued", queues, Sidekiq::Queue.new.map(&:args).sort, Sidekiq::Stats.new.enqueued, Sidekiq::Queue.new.latency < 60
worker = start(1)
show "in the order of the queues", marks(5)
show "process", Sidekiq::ProcessSet.new.map { |p| [p["concurrency"], p["queues"], p["labels"]] }, Sidekiq::Stats.new.processes_size
show "stopped", stop(worker), Sidekiq::ProcessSet.new.size, Sidekiq::Stats.new.then { |s| [s.processed, s.failed, s.enqueued] }

worker = start(3)
asked = Process.clock_gettime(Process::CLOCK_MONOTONIC)
Mark.perform_in(0.6, "later")
Mark.perform_at(Time.now + 3600, "in an hour")
show "scheduled", Sidekiq::ScheduledSet.new.map { |job| [job.klass, job.args, job.queue] }
show "ran when due", marks(1), Process.clock_gettime(Process::CLOCK_MONOTONIC) - asked >= 0.59, Sidekiq::ScheduledSet.new.size
job = Sidekiq::ScheduledSet.new.first
job.reschedule(Time.now + 7200)
show "rescheduled", Sidekiq::ScheduledSet.new.first.at > Time.now + 7000
Sidekiq::ScheduledSet.new.first.add_to_queue
show "run now", marks(1), Sidekiq::ScheduledSet.new.size
Flaky.perform_async(3)
2.times do |i|
  retries = Sidekiq::RetrySet.new
  until_true("to be retried") { retries.first&.item&.fetch("retry_count") == i }
  show "to be retried", retries.first.then { |r| [r.klass, r["error_message"], r["retry_count"], r.at > Time.now + 10] }
  i.zero? ? retries.first.reschedule(Time.now) : retries.retry_all
end
show "retried", marks(1), Sidekiq::RetrySet.new.size
Dies.perform_async("x")
until_true("to be retried") { Sidekiq::RetrySet.new.first }.reschedule(Time.now)
until_true("dead") { Sidekiq::DeadSet.new.size == 1 }
dead = Sidekiq::DeadSet.new.first
show "dead", dead.klass, dead["error_class"], dead["error_message"], dead["retry_count"], redis { |r| r.lrange("deaths", 0, -1) }
show "found", Sidekiq::DeadSet.new.find_job(dead.jid)&.jid == dead.jid, Sidekiq::DeadSet.new.scan("Dies").map(&:klass)
dead.delete
show "deleted", Sidekiq::DeadSet.new.size
Mark.perform_bulk((1..500).map { |i| [i.to_s] })
show "five hundred", marks(500).map(&:to_i).sum
stop(worker)
# One thread: with more, one that waits for a job could take what the busy one gives back.
worker = start(1)
Slow.perform_async
until_true("started") { redis { |r| r.llen("slow") } == 1 }
show "stopped with a job in its hands", stop(worker), queues
worker = start(1)
until_true("started again") { redis { |r| r.llen("slow") } >= 2 }
redis { |r| r.set("let go", 1) }
until_true("ended") { redis { |r| r.lrange("slow", 0, -1) }.last == "ended" }
show "the next worker does it", redis { |r| r.lrange("slow", 0, -1) }
stop(worker)
Mark.perform_async("stays")
show "queue cleared", queues, Sidekiq::Queue.new.clear && queues
show "keys left", redis { |r| r.keys("*") }.map { |key| key.sub(/\d{4}-\d\d-\d\d/, "DATE").sub(/^vm:.*/, "vm:PROCESS") }.uniq.sort
