# Nothing that was acknowledged is undone by a crash.  Clients create, revoke
# and rotate sessions and write down what the server confirmed; meanwhile one
# of its processes is killed.  After recovery every created session must be
# there and no revoked one may be back.  With synchronous_commit off a creation
# may be lost, a revocation still may not.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep);

my $clients = 4;
my $rounds = 5 * long_runs();

my $node = new_node(
	'crash',
	preload => 'session_manager',
	conf => q(
restart_after_crash = on
autovacuum = off
wal_writer_delay = 10s
));
$node->safe_psql('postgres', 'CREATE EXTENSION amcheck')
  if has_module('amcheck');

# With synchronous_commit off and nobody else writing, what a call has left
# unwritten shows whether its acknowledgement can be trusted.
sub is_durable
{
	my ($prepare, $call) = @_;
	return $node->safe_psql(
		'postgres', qq(
		SET session_manager.rotation_grace = 0;
		$prepare
		SET synchronous_commit = off;
		SELECT $call \\g /dev/null
		SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn() < 64;)
	) eq 't';
}

my $login =
  q(SELECT session_id AS id, session_token AS t FROM session_create('ann', tenant_id => 'acme') \gset);
my $replaced = "$login
	SELECT session_token AS new FROM session_refresh(:'t', true) \\gset
	SELECT count(*) FROM session_get(:'new') \\g /dev/null";
my $another_key = q(
	SELECT session_key_generate() AS key \gset
	SELECT session_key_activate(:key) \g /dev/null);
ok( wait_until(sub { !is_durable('', q(session_create('ann'))) }),
	'without synchronous_commit a login is acknowledged before it is written'
);
# somebody else may write now and then
ok(is_durable(@$_) || is_durable(@$_), "$_->[1] is written all the same")
  foreach [ $login, q(session_invalidate(:'t')) ],
  [ $login, q(session_invalidate_id(:'id')) ],
  [ $login, q(session_invalidate_all('ann')) ],
  [ $login, q(session_invalidate_tenant('acme')) ],
  [ $login, q(session_invalidate_everything()) ],
  [ $login, q(session_erase('ann')) ],
  [ $replaced, q(session_refresh(:'t', true)) ],
  [
	"$login\nSET session_manager.max_sessions_per_user = 1;",
	q(session_create('ann'))
  ],
  [ $another_key, 'session_key_revoke(:key - 1)' ];

# What a client does: "create T", "try T" before a change, then "revoke T" or
# "rotate T NEW" once the server has confirmed it.  A session is changed long
# after its creation, so that a crash can undo the one without the other.
my $script = $node->basedir . '/client.sql';
my $age = 40;
my @revoke = (
	'session_invalidate(:T)', 'session_invalidate_id(:ID, :U)',
	'session_invalidate_all(:U)');
write_file(
	$script,
	join '',
	map {
		my $old = $_ - $age;
		my $lines = qq(\\set u$_ :client '-$_'
SELECT session_id AS id$_, session_token AS t$_ FROM session_create(:'u$_', '{"n": $_}') \\gset
\\echo create :t$_
);
		if ($old > 0 && $old % 2 == 0)
		{
			my $call = $revoke[ $old / 2 % @revoke ];
			$call =~ s/:T/:'t$old'/;
			$call =~ s/:ID/:'id$old'/;
			$call =~ s/:U/:'u$old'/;
			$lines .= "\\echo try :t$old
SELECT $call \\g /dev/null
\\echo revoke :t$old
";
		}
		elsif ($old > 0 && $old % 3 == 0)
		{
			$lines .= "\\echo try :t$old
SELECT session_token AS new FROM session_refresh(:'t$old', true) \\gset
\\echo rotate :t$old :new
";
		}
		$lines;
	} 1 .. 10_000);

my (%live, %dead);

foreach my $round (1 .. $rounds)
{
	my $victim = (qw(backend postmaster server))[ $round % 3 ];
	my $async = $round % 5 >= 3;
	my $label = "round $round, $victim killed"
	  . ($async ? ', synchronous_commit off' : '');
	my @out = map { $node->basedir . "/client-$round-$_.out" } 1 .. $clients;

	my $before =
	  $node->safe_psql('postgres', 'SELECT count(*) FROM user_sessions');
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
				env => {
					PGOPTIONS => '-c synchronous_commit='
					  . ($async ? 'off' : 'on')
				},
			}
		} 1 .. $clients);

	wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT count(*) > $before + 200 FROM user_sessions") eq 't';
		}) or die "the clients do not work: " . slurp_file($out[0]);
	usleep(int rand 300_000);

	if ($victim eq 'backend')
	{
		my $pid = $node->safe_psql(
			'postgres', q(
			SELECT pid FROM pg_stat_activity WHERE application_name = 'client'
			ORDER BY random() LIMIT 1));
		kill 'KILL', $pid;
	}
	elsif ($victim eq 'postmaster')
	{
		my ($pid) =
		  slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
		$node->kill9;
		wait_until(sub { !kill 0, $pid }) or die 'the postmaster lives on';
	}
	else
	{
		$node->stop('immediate');
	}

	my @codes = finish_all(@running);
	is(scalar(grep { $_ == 2 || $_ == 3 } @codes),
		$clients, "$label: every client was cut off");

	if ($victim eq 'backend')
	{
		$node->poll_query_until('postgres', 'SELECT true')
		  or die 'the server does not come back';
	}
	else
	{
		# Orphaned processes hold the shared memory until they notice.
		wait_until(sub { $node->start(fail_ok => 1) })
		  or die 'the server does not start again';
	}

	my $acknowledged = 0;
	foreach my $line (map { split /\n/, slurp_file($_) } @out)
	{
		my ($what, $token, $new) = split / /, $line;
		if ($what eq 'create')
		{
			$live{$token} = 1 unless $async;
			$acknowledged++;
		}
		elsif ($what eq 'try')
		{
			delete $live{$token};
		}
		elsif ($what eq 'revoke')
		{
			$dead{$token} = 1;
		}
		elsif ($what eq 'rotate')
		{
			$live{$new} = 1 unless $async;
		}
	}
	note "$label: $acknowledged sessions";

	# Everything of the earlier rounds, too.
	is( count_live($node, keys %live),
		scalar(keys %live),
		"$label: no acknowledged session is lost");
	is(count_live($node, keys %dead), 0,
		"$label: no revoked session is back");
	is( $node->safe_psql(
			'postgres', q(
			SELECT count(*) FROM user_sessions s WHERE NOT EXISTS (
				SELECT FROM session_events e
				WHERE e.session_id = s.session_id AND e.event = 'created'))),
		'0',
		"$label: every session has its event");
}

cmp_ok(scalar(keys %live), '>', 100, 'sessions to lose');
cmp_ok(scalar(keys %dead), '>', 100, 'sessions to revive');
SKIP:
{
	skip 'amcheck is not installed', 1 unless has_module('amcheck');
	$node->command_ok([ 'pg_amcheck', '--heapallindexed', '-d', 'postgres' ],
		'tables and indexes are sound');
}

done_testing();
