# Under load, processes of all kinds are killed at random: workers, which sweep,
# flush touches and re-seal meanwhile, backends, which log in, read, rotate and
# log out, the launcher, the checkpointer, the postmaster.  No session whose
# creation was acknowledged is lost, and none whose end was is back.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep time);

my $clients = 4;
my $rounds = $ENV{SM_KILL_ROUNDS} // 5 * long_runs();
my @victims = (
	'worker', 'client', 'postmaster', 'worker',
	'launcher', 'client', 'checkpointer');

my $node = new_node(
	'kill',
	preload => 'session_manager',
	conf => q(
restart_after_crash = on
session_manager.sweep_interval = 1s
session_manager.sweep_batch = 20
session_manager.sweep_pause = 20ms
session_manager.flush_interval = 1s
session_manager.touch_interval = 0
session_manager.idle_timeout = 1h
session_manager.rotation_grace = 0
));
$node->safe_psql('postgres', 'CREATE EXTENSION amcheck')
  if has_module('amcheck');

# What a client does over and over, telling what the server has confirmed
my $script = $node->basedir . '/client.sql';
write_file(
	$script,
	join '',
	map {
		my $old = $_ - 30;
		my $lines = qq(
SELECT session_token AS t$_ FROM session_create(:'client' || '-$_', '{"n": $_}') \\gset
\\echo create :t$_
SELECT count(*) FROM session_create(:'client' || '-dead', ttl => '1 millisecond') \\g /dev/null
);
		$lines .=
		  "SELECT count(*) FROM session_get(:'t$old', '192.0.2.1', 'client') \\g /dev/null\n"
		  if $old > 0;
		$lines .=
		  "\\echo try :t$old\nSELECT session_invalidate(:'t$old') \\g /dev/null\n\\echo end :t$old\n"
		  if $old > 0 && $old % 3 == 0;
		$lines .=
		  "\\echo try :t$old\nSELECT session_token AS new FROM session_refresh(:'t$old', true) \\gset\n\\echo create :new\n"
		  if $old > 0 && $old % 3 == 1;
		$lines;
	} 1 .. 5_000);

# The process to kill: its pid, once there is one
sub victim
{
	my ($kind) = @_;
	return (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0]
	  if $kind eq 'postmaster';
	my $where =
		$kind eq 'client'       ? "application_name = 'client'"
	  : $kind eq 'checkpointer' ? "backend_type = 'checkpointer'"
	  :                           "backend_type = 'session_manager $kind'";
	my $pid = '';
	wait_until(
		sub {
			$pid = $node->safe_psql('postgres',
				"SELECT pid FROM pg_stat_activity WHERE $where ORDER BY random() LIMIT 1"
			);
			return $pid ne '';
		}) or die "there is no $kind";
	return $pid;
}

# Kill a process of a kind.  A worker that has just ended by itself may still have
# its pid: then another one is taken.
sub kill_one
{
	my ($kind) = @_;
	while (1)
	{
		my $pid = victim($kind);
		my $state = '';
		# What is stopped no longer ends by itself; what has ended does not stop.
		kill 'STOP', $pid;
		wait_until(
			sub {
				$state = `ps -o state= -p $pid`;
				return $state =~ /^[TZ]/ || $state eq '';
			}) or die "process $pid does not stop";
		if ($state =~ /^T/)
		{
			kill 'KILL', $pid;
			return;
		}
	}
}

my (%live, %dead);
my $key = 1;

foreach my $round (1 .. $rounds)
{
	my $kind = $victims[ ($round - 1) % @victims ];
	my $label = "round $round, $kind killed";
	my @out = map { $node->basedir . "/client-$round-$_.out" } 1 .. $clients;

	my @running = in_parallel(
		$node,
		map {
			{
				cmd => [
					'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v',
					"client=c$round.$_", '-f', $script,
					$node->connstr('postgres') . ' application_name=client'
				],
				out => $out[ $_ - 1 ],
			}
		} 1 .. $clients);

	# another key, so that there is something to re-seal
	if ($round % 2 == 0)
	{
		$key = $node->safe_psql('postgres', 'SELECT session_key_generate()');
		$node->safe_psql('postgres', "SELECT session_key_activate($key)");
	}
	wait_until(sub { slurp_file($out[0]) =~ /^end /m })
	  or die 'the clients do not work';
	usleep(int rand 500_000);

	my @family = split ' ', `ps -o pid= --ppid @{[ victim('postmaster') ]}`;
	kill_one($kind);
	my @codes = finish_all(@running);
	is(scalar(grep { $_ == 2 || $_ == 3 } @codes),
		$clients, "$label: every client was cut off");
	if ($kind eq 'postmaster')
	{
		# Orphaned processes hold the shared memory until they notice.
		wait_until(
			sub {
				!grep { kill 0, $_ } @family;
			}) or die 'orphans live on';
		unlink $node->data_dir . '/postmaster.pid';
		$node->{_pid} = undef;
		# what the killed postmaster leaves behind takes a moment to go
		wait_until(sub { $node->start(fail_ok => 1) })
		  or die 'the server does not start again';
	}
	my $back = time();
	ok( wait_until(
			sub {
				return if_there($node,
					"SELECT count(*) FROM session_info() WHERE key = 'workers' AND value LIKE 'on%'"
				) eq '1';
			}),
		"$label: the server and its workers are back");
	note sprintf('%s: %.1f s', $label, time() - $back);

	foreach my $line (map { split /\n/, slurp_file($_) } @out)
	{
		my ($what, $token) = $line =~ /^(create|try|end) (\S+)$/ or next;
		if   ($what eq 'create') { $live{$token} = 1; }
		else                     { delete $live{$token}; }
		$dead{$token} = 1 if $what eq 'end';
	}
	# Everything of the earlier rounds, too
	is( count_live($node, keys %live),
		scalar(keys %live),
		"$label: no acknowledged session is lost");
	is(count_live($node, keys %dead),
		0, "$label: none that was ended is back");
}

cmp_ok(scalar(keys %live), '>', 50 * $rounds, 'sessions to lose');
cmp_ok(scalar(keys %dead), '>', 10 * $rounds, 'sessions to revive');
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT (SELECT count(*) FROM user_sessions WHERE user_id LIKE '%-dead' OR key_id <> $key), value FROM session_info() WHERE key = 'resealing'"
			) eq '0|done';
		},
		60),
	'in the end all that was left to the workers is done');
SKIP:
{
	skip 'amcheck is not installed', 1 unless has_module('amcheck');
	$node->command_ok([ 'pg_amcheck', '--heapallindexed', '-d', 'postgres' ],
		'tables and indexes are sound');
}
unlike(
	slurp_file($node->logfile),
	qr/deadlock|terminated by signal (?!9|3)|TRAP|stuck spinlock/,
	'and nothing crashed by itself');
note scalar(keys %live) . ' sessions, ' . scalar(keys %dead) . ' ended';
$node->stop;

done_testing();
