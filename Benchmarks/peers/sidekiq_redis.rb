# Sidekiq, two processes of 5 threads, which lose what they have when they are killed. Prints jobs a second enqueued singly, in bulk, and processed, and
# milliseconds from enqueue to start on an idle worker: median and 99th percentile. Arguments: JOBS; BENCH_URL names the server.
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
  jobs = ARGV[0].to_i
  text = "x" * 32
  clock = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
  length = -> { Sidekiq.redis { |redis| redis.llen("queue:default") } }
  Sidekiq.redis { |redis| redis.flushdb }
  begin_at = clock.call
  5000.times { |number| Noop.perform_async(text, number) }
  single = 5000 / (clock.call - begin_at)
  Sidekiq.redis { |redis| redis.flushdb }
  begin_at = clock.call
  0.step(jobs - 1, 1000) { |first| Noop.perform_bulk((first...[first + 1000, jobs].min).map { |number| [text, number] }, batch_size: 1000) }
  bulk = jobs / (clock.call - begin_at)
  workers = 2.times.map { spawn("sidekiq", "-r", File.expand_path(__FILE__), "-c", "5", out: File::NULL, err: File::NULL) }
  sleep 0.001 while length.call == jobs
  begin_at = clock.call
  sleep 0.005 while length.call > 0
  process = jobs / (clock.call - begin_at)
  waits = 500.times.map do
    Stamp.perform_async(clock.call)
    wait = Sidekiq.redis { |redis| redis.call("BRPOP", "waits", 5) }.last.to_f * 1000
    sleep 0.005
    wait
  end.sort
  workers.each { |worker| Process.kill("TERM", worker) }
  workers.each { |worker| Process.wait(worker) }
  puts "#{single} #{bulk} #{process} #{waits[waits.size / 2]} #{waits[waits.size * 99 / 100]}"
end
