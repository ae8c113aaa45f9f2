
=pod

=head1 NAME

CacheHistory - histories of reads and revocations while things go wrong

=head1 DESCRIPTION

A server, its Redis, and a proxy before it for the worker and one for the
readers. run() lets test/history/cache_history.c read, change and revoke sessions by the
reader in examples/ while a fault goes on, and returns what it counted.

=cut

package CacheHistory;

use strict;
use warnings FATAL => 'all';

use CacheTest;
use Cwd qw(abs_path);
use File::Basename;
use IPC::Run;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep time);

my $root = abs_path(dirname(__FILE__) . '/../../..');

# Compile a C file of the project; returns the program.  The reader may be
# replaced: sources are looked for in its directory first.
sub compile
{
	my ($source, $examples) = @_;
	my $program =
	  PostgreSQL::Test::Utils::tempdir() . '/' . basename($source, '.c');
	my $config = $ENV{PG_CONFIG} or die 'PG_CONFIG is not set';
	chomp(my $include = `$config --includedir`);
	chomp(my $lib = `$config --libdir`);
	system_or_bail(
		'gcc', '-O2',
		'-Wall', '-Wextra',
		'-Werror', '-I' . ($examples // "$root/examples"),
		"-I$include", '-o',
		$program, $source =~ m{^/} ? $source : "$root/$source",
		"-L$lib", '-lpq',
		'-lhiredis', '-lsodium');
	return $program;
}

# A reader with something wrong; returns the program that checks histories with it.
sub sabotaged
{
	return changed('test/history/cache_history.c', @_);
}

# Compile a C file with a reader in which each pair of texts is replaced once,
# and must be there.
sub changed
{
	my ($source, @pairs) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $code = slurp_file("$root/examples/cache_reader.c");
	while (my ($from, $to) = splice @pairs, 0, 2)
	{
		my $at = index $code, $from;
		$at >= 0 or die "the reader has no: $from";
		substr($code, $at, length $from) = $to;
	}
	write_file("$dir/cache_reader.c", $code);
	$source = "$dir/cache_reader.c" if $source eq 'examples/cache_reader.c';
	return compile($source, $dir);
}

sub new
{
	my ($class, $name, $mode) = @_;
	my $self = bless {
		mode => $mode,
		program => compile('test/history/cache_history.c'),
		redis => RedisServer->new,
		key => PostgreSQL::Test::Utils::tempdir() . '/application_key',
		dead_ms => $mode eq 'strict' ? 2500 : 4000,
	}, $class;
	my $proxy = compile('test/history/proxy.c');
	foreach my $who ('worker', 'readers')
	{
		my %p = (in => '', out => '');
		$p{run} = IPC::Run::start([ $proxy, $self->{redis}->socket ],
			\$p{in}, \$p{out});
		$p{run}->pump until $p{out} =~ /\n/;
		chomp($p{port} = $p{out});
		$self->{$who} = \%p;
	}
	write_file($self->{key}, random_key() . "\n");
	$self->{node} = new_node(
		$name,
		preload => 'session_manager',
		conf => qq(
max_connections = 100
restart_after_crash = on
log_min_messages = log
session_manager.sweep_interval = 1h
session_manager.redis_mode = $mode
session_manager.redis_host = '127.0.0.1'
session_manager.redis_port = $self->{worker}{port}
));
	wait_for_epoch($self->{node}, $self->{redis});
	return $self;
}

# Tell the proxy of 'worker' or 'readers' how bad to be.
sub tell
{
	my ($self, $who, $what) = @_;
	my $proxy = $self->{$who};
	$proxy->{in} .= "$what\n";
	$proxy->{run}->pump_nb while length $proxy->{in};
	return;
}

# Back to normal, and wait until there is an epoch.
sub heal
{
	my ($self) = @_;
	$self->tell($_, 'pass') foreach 'worker', 'readers';
	$self->{redis}->start unless $self->{redis}->pid;
	$self->{redis}->continue;
	$self->{redis}->call('CONFIG', 'SET', 'maxmemory', 0);
	wait_until(
		sub {
			eval { $self->{node}->safe_psql('postgres', 'SELECT 1') }
		}) or die 'the server has not come back';
	wait_for_epoch($self->{node}, $self->{redis});
	return;
}

sub stop
{
	my ($self) = @_;
	$_->{run}->kill_kill foreach $self->{worker}, $self->{readers};
	$self->{node}->stop;
	return;
}

# Let processes read and revoke for so many seconds, while the fault is called
# again and again.
sub run
{
	my ($self, $seconds, $fault, $program) = @_;
	my $out = '';
	# A pipe that nobody reads while a fault goes on would stop its processes.
	my $err_file = PostgreSQL::Test::Utils::tempdir() . '/stderr';
	my $run = IPC::Run::start(
		[
			$program // $self->{program},
			$self->{node}->connstr('postgres'),
			"127.0.0.1:$self->{readers}{port}/1",
			$self->{key},
			$seconds,
			$self->{dead_ms}
		],
		'<',
		'/dev/null',
		'>',
		\$out,
		'2>',
		$err_file,
		IPC::Run::timeout($seconds + 60));
	# each of its processes is connected, or it ends
	$run->pump until $out =~ /^connected/m || !$run->pumpable;
	my $end = time() + $seconds;
	while (time() < $end)
	{
		$fault ? $fault->($self) : usleep(50_000);
	}
	# whoever waits for Redis or for the server is let go
	$self->heal;
	$run->finish;
	my %result = $out =~ /^(\w+) ([\d.]+)$/mg;
	my $err = slurp_file($err_file);
	$result{complaints} = join '', grep { /stale/ } split /^/, $err;
	die "the checker failed: $out$err" if $result{failed_processes} // 1;
	my $found = $result{cache} + $result{database};
	$result{share} = $found > 0 ? $result{cache} / $found : 0;
	return \%result;
}

# The same for a test of one fault, with the results of all runs together.  A
# restart takes a part of the time, and on a busy machine it may take all of it:
# until enough sessions have been revoked, run again, and longer each time.
sub run_enough
{
	my ($self, $name, $seconds, $fault) = @_;
	my %all = (complaints => '');
	for my $turn (1 .. 5)
	{
		$self->{turn} = $turn;
		my $r =
		  $self->run($turn * ($name =~ /kill/ ? 2 * $seconds : $seconds),
			$fault);
		note(summary($name, $r));
		$all{$_} = ($all{$_} // 0) + $r->{$_}
		  foreach
		  qw(stale_cache stale_database wrongly_none revocations errors failed_changes);
		$all{$_} = max($all{$_} // 0, $r->{$_})
		  foreach qw(max_commit max_stale share);
		$all{complaints} .= $r->{complaints};
		last if $all{revocations} >= 2 * $seconds;
	}
	cmp_ok(
		$all{revocations}, '>=',
		2 * $seconds,
		"$name: sessions were revoked");
	return \%all;
}

# What redis_mode = async promises, while a fault goes on: nothing is served
# that was changed more than 3 seconds ago, and the database itself is never
# stale.  Three tests; returns what run_enough() does.
sub run_async
{
	my ($self, $name, $seconds, $fault) = @_;
	my $r = $self->run_enough($name, $seconds, $fault);

	cmp_ok($r->{max_stale}, '<=', 3000, "$name: stale by 3 s at most")
	  or diag($r->{complaints});
	is($r->{stale_database}, 0, "$name: the database is never stale");
	is($r->{wrongly_none}, 0, "$name: no live session denied");
	return $r;
}

# One line for the log of the test.
sub summary
{
	my ($name, $r) = @_;
	return
	  sprintf
	  '%s: %d reads, %.0f %% of sessions from the cache; %d revocations, '
	  . '%d updates, %d failed; %d errors; longest commit %.0f ms; stale %d by at most %.0f ms',
	  $name, $r->{reads}, 100 * $r->{share}, $r->{revocations}, $r->{updates},
	  $r->{failed_changes}, $r->{errors}, $r->{max_commit},
	  $r->{stale_cache} + $r->{stale_database},
	  $r->{max_stale};
}

# Keep each processor busy by so many loops.  They end with the test at the latest.
sub busy_loops
{
	my ($n) = @_;
	chomp(my $processors = `getconf _NPROCESSORS_ONLN`);
	return [ map { IPC::Run::start([ $^X, '-e', 'alarm 300; 1 while 1' ]) }
		  1 .. $n * $processors ];
}

sub end_loops
{
	my ($loops) = @_;
	$_->kill_kill(grace => 0) foreach @$loops;
	return;
}

# Delete all but the epoch, so that there is much to fill.
sub evict
{
	my ($self) = @_;
	$self->{redis}->call(
		'EVAL',
		"for _, k in ipairs(redis.call('KEYS', 'session:0*')) do redis.call('DEL', k) end",
		0);
	return;
}

# A pause between two numbers of seconds.
sub pause
{
	my ($from, $to) = @_;
	usleep(1_000_000 * ($from + rand($to - $from)));
	return;
}

# What goes wrong, by name.  Each is one turn, which takes as long as it likes.
sub faults
{
	my ($class) = @_;
	return (
		'Redis stopped' => sub {
			my ($self) = @_;
			$self->{redis}->stop;
			pause(0.02, 3);
			$self->{redis}->continue;
			pause(0.1, 0.8);
		},
		'CLIENT PAUSE' => sub {
			my ($self) = @_;
			my $ms = 50 + int(rand(2500));
			$self->{redis}
			  ->call('CLIENT', 'PAUSE', $ms, rand() < 0.5 ? 'ALL' : 'WRITE');
			usleep(1000 * $ms);
			pause(0.1, 0.8);
		},
		'Redis restarted empty' => sub {
			my ($self) = @_;
			$self->{redis}->kill9;
			pause(0, 1);
			$self->{redis}->start;
			pause(0.3, 1.5);
		},
		'FLUSHALL each second' => sub {
			my ($self) = @_;
			$self->{redis}->call('FLUSHALL');
			pause(0.9, 1);
		},
		'maxmemory 5 MB, allkeys-lru' => sub {
			my ($self) = @_;
			my $redis = $self->{redis};
			if ($redis->call('CONFIG', 'GET', 'maxmemory')->[1] == 0)
			{
				$redis->call('CONFIG', 'SET', 'maxmemory-policy',
					'allkeys-lru');
				$redis->call('CONFIG', 'SET', 'maxmemory', 5 * 1024 * 1024);
			}
			# twice what there is room for
			$redis->call('MSET',
				map { ('filler:' . int(rand(1000)), 'x' x 10_000) } 1 .. 200);
			usleep(50_000);
		},
		'packets delayed, connections cut and hanging' => sub {
			my ($self) = @_;
			$self->tell('readers', 'chaos 25');
			$self->tell('worker', 'chaos ' . int(rand(2) < 1 ? 40 : 900));
			pause(0.2, 1);
			$self->tell('worker', 'cut') if rand() < 0.3;
		},
		'keys evicted, fills and acknowledgements delayed' => sub {
			my ($self) = @_;
			$self->tell('readers', 'chaos 15');
			$self->tell('worker', 'chaos 150');
			$self->evict;
			usleep(20_000);
		},
		'the worker cut off from Redis' => sub {
			my ($self) = @_;
			$self->tell('worker', 'hole');
			pause(0.2, 4);
			$self->tell('worker', 'pass');
			pause(0.3, 1);
		},
		'kill -9 of the worker' => sub {
			my ($self) = @_;
			my $pid = eval {
				$self->{node}->safe_psql('postgres',
					"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager cache worker'"
				);
			};
			kill 'KILL', $pid if $pid;
			$self->{killed}++ if $pid;
			pause(1, 4);
		},
		'kill -9 of the postmaster' => sub {
			my ($self) = @_;
			my $node = $self->{node};
			my ($pid) =
			  slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
			$node->kill9;
			wait_until(sub { !kill 0, $pid })
			  or die 'the postmaster lives on';
			# its children hold the shared memory until they have noticed
			my $start = time();
			wait_until(sub { $node->start(fail_ok => 1) })
			  or die 'the server does not start';
			note(sprintf 'started in %.1f s', time() - $start);
			# revocations wait until the last epoch of the crashed server is dead
			pause(2.5, 2.5 + 1.5 * $self->{turn});
		});
}

1;
