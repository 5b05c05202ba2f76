# Sidekiq, two processes of 5 threads, which lose the jobs in progress when they are killed. Arguments: WHAT JOBS;
# BENCH_URL names the server.
# rates: prints jobs a second enqueued singly, in bulk, and processed. waits: prints milliseconds from enqueue to start
# on an idle worker, median and 99th percentile.
require "sidekiq"
url = ENV.fetch("BENCH_URL")
Sidekiq.configure_server { |config| config.redis = { url: url }; config.logger.level = Logger::FATAL }
Sidekiq.configure_client { |config| config.redis = { url: url } }

class Noop
  include Sidekiq::Job
  def perform(text, number) = number
end

class Stamp
  include Sidekiq::Job
  def perform(sent_at) = Sidekiq.redis { |redis| redis.call("LPUSH", "waits", Process.clock_gettime(Process::CLOCK_MONOTONIC) - sent_at) }
end

if $0 == __FILE__
  what, jobs = ARGV[0], ARGV[1].to_i
  text = "x" * 32
  clock = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
  length = -> { Sidekiq.redis { |redis| redis.llen("queue:default") } }
  start = -> { 2.times.map { spawn("sidekiq", "-r", File.expand_path(__FILE__), "-c", "5", out: File::NULL, err: File::NULL) } }
  if what == "rates"
    Sidekiq.redis { |redis| redis.flushdb }
    begin_at = clock.call
    5000.times { |number| Noop.perform_async(text, number) }
    single = 5000 / (clock.call - begin_at)
    Sidekiq.redis { |redis| redis.flushdb }
    begin_at = clock.call
    0.step(jobs - 1, 1000) { |first| Noop.perform_bulk((first...[first + 1000, jobs].min).map { |number| [text, number] }, batch_size: 1000) }
    bulk = jobs / (clock.call - begin_at)
    workers = start.call
    sleep 0.001 while length.call == jobs
    begin_at = clock.call
    sleep 0.005 while length.call > 0
    puts "#{single} #{bulk} #{jobs / (clock.call - begin_at)}"
  else
    # Others may have a worker in the same database.
    Sidekiq.redis { |redis| redis.call("DEL", "waits", "queue:default") }
    workers = start.call
    wait = lambda do
      Stamp.perform_async(clock.call)
      Sidekiq.redis { |redis| redis.call("BRPOP", "waits", 5) }.last.to_f * 1000
    end
    sleep 0.05 until Sidekiq.redis { |redis| redis.call("SCARD", "processes") } == workers.size
    20.times { wait.call }
    waits = jobs.times.map { wait.call.tap { sleep 0.005 } }.sort
    puts "#{waits[waits.size / 2]} #{waits[waits.size * 99 / 100]}"
  end
  workers.each { |worker| Process.kill("TERM", worker) }
  workers.each { |worker| Process.wait(worker) }
end
