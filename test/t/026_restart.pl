# Workers and the launcher come back, whatever ends them.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node(
	'restart',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
session_manager.flush_interval = 1s
session_manager.touch_interval = 0
restart_after_crash = on
));

sub value
{
	my ($sql) = @_;
	return if_there($node, $sql);
}

# A dead session is swept in five seconds, counted from now.
sub works
{
	my ($name) = @_;
	my $id = '';
	wait_until(
		sub {
			$id = value(
				"SELECT session_id FROM session_create('ann', ttl => '1 millisecond')"
			);
			return $id ne '';
		});
	wait_until(
		sub {
			value("SELECT count(*) FROM user_sessions WHERE user_id = 'ann'")
			  eq '0';
		});
	# (by the server's clock: to start psql takes long on a busy machine)
	my $took = value(
		"SELECT extract(epoch FROM max(at) - min(at)) FROM session_events WHERE session_id = '$id' AND event IN ('created', 'expired') HAVING count(*) = 2"
	);
	ok($took ne '' && $took < 5, $name);
	note("$took s");
	return;
}

sub pid_of
{
	my ($type) = @_;
	my $pid = '';
	wait_until(
		sub {
			$pid = value(
				"SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'session_manager $type'"
			);
			return $pid ne '';
		},
		20) or die "there is no $type";
	return $pid;
}

# End a process and see it gone, and with it what it would still have done.
sub finish_off
{
	my ($signal, $pid) = @_;
	kill $signal, $pid;
	wait_until(sub { !kill 0, $pid }) or die "process $pid lives on";
	return;
}

works('a worker works');
my $launcher = pid_of('launcher');
value("SELECT pg_terminate_backend($launcher)");
works('after the launcher was terminated');
isnt(pid_of('launcher'), $launcher, 'by another launcher');
finish_off('TERM', pid_of('launcher'));
works('after it got SIGTERM');
finish_off('KILL', pid_of('launcher'));
works('after it was killed');
$node->restart;
works('after a restart');
$node->stop('immediate');
$node->start;
works('after a crash');
$node->reload;
works('after a reload');

# A worker is hard to catch: it is killed while it waits between two batches.
$node->append_conf('postgresql.conf',
	"session_manager.sweep_pause = 500ms\nsession_manager.sweep_batch = 1");
$node->reload;
# (what began before the server had read that would do all at once)
wait_until(sub { value('SHOW session_manager.sweep_pause') eq '500ms' })
  or die 'not reloaded';
wait_until(
	sub {
		value(
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_manager worker'"
		) eq '0';
	}) or die 'a worker goes on for ever';
value(
	"SELECT count(*) FROM generate_series(1, 400) AS i, session_create('bea', jsonb_build_object('i', i), ttl => '1 millisecond')"
);
# (one that ends, or begins, says nothing)
my $pid = '';
ok( wait_until(
		sub {
			$pid = value(
				"SELECT max(pid) FROM pg_stat_activity, session_info() WHERE backend_type = 'session_manager worker' AND query = 'deleting ended sessions' AND key = 'workers' AND value LIKE 'on: pid ' || pid || ' is at work%'"
			);
			return $pid ne '';
		}),
	'pg_stat_activity tells what a worker does, and session_info that it does'
);
value("SELECT pg_terminate_backend($pid)");
ok(wait_until(sub { !kill 0, $pid }), 'a worker at work heeds a termination');
isnt(value("SELECT count(*) FROM user_sessions WHERE user_id = 'bea'"),
	'0', 'before all is done');
finish_off('KILL', pid_of('worker'));
$node->append_conf('postgresql.conf',
	"session_manager.sweep_pause = 0\nsession_manager.sweep_batch = 1000");
wait_until(sub { value('SELECT pg_reload_conf()') eq 't' });
works('after it was terminated, and another killed');
ok( wait_until(
		sub {
			value("SELECT count(*) FROM user_sessions WHERE user_id = 'bea'")
			  eq '0';
		}),
	'and what they left is done');

# A backend dies while it notes touches: the locks die with the shared memory
my $token = create_session($node, 'cat');
for my $round (1 .. 3 * long_runs())
{
	my $script = $node->basedir . '/touch.sql';
	write_file(
		$script,
		"SELECT count(*) FROM generate_series(1, 1000) AS i, LATERAL session_get('$token', touch => i > 0);\n",
		0644);
	my @running = in_parallel(
		$node,
		{
			cmd => [
				'pgbench', '-n', '-f', $script,
				'-c', '2', '-T', '60',
				'postgres'
			],
			out => $node->basedir . '/touch.log'
		});
	my $victim;
	wait_until(
		sub {
			$victim = value(
				"SELECT max(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM generate_series(1, 1000)%' AND pid <> pg_backend_pid()"
			);
			return $victim ne '';
		});
	kill 'KILL', $victim;
	finish_all(@running);
	ok( wait_until(
			sub {
				return value(
					"SELECT count(*) FROM session_get('$token', touch => false)"
				) eq '1';
			}),
		"round $round: the server is back, and the session as well");
}
works('after backends were killed');
$node->stop;

# Nothing of this where nothing may run
$node = PostgreSQL::Test::Cluster->new('upgrade');
$node->init;
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'session_manager'");
my $log = $node->basedir . '/binary_upgrade.log';
my $started = IPC::Run::start(
	[
		'postgres', '-b', '-D', $node->data_dir, '-c',
		"unix_socket_directories=" . $node->host,
		'-c', 'listen_addresses='
	],
	'<',
	'/dev/null',
	'>', $log, '2>&1',
	IPC::Run::timeout(60));
ok(wait_until(sub { slurp_file($log) =~ /ready to accept connections/ }),
	'a binary upgrade starts');
my $postmaster =
  (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
my $children = `ps -o args= --ppid $postmaster`;
unlike($children, qr/session_manager/, 'without a launcher');
kill 'TERM', $postmaster;
$started->finish;

done_testing();
