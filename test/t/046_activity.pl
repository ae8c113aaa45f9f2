# A worker counts events by the hour: the numbers are those of the audit trail,
# also after a crash and on a standby, and a call is bounded when no worker has
# counted for long.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'primary',
	preload => 'session_manager',
	streaming => 1,
	conf => 'session_manager.sweep_interval = 1s');
$node->safe_psql('postgres',
	"CREATE ROLE watch LOGIN; SELECT session_grant('watch', 'monitor')");
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# Numbers by hour, type and reason: as a role that only watches is told them,
# and as the audit trail has them
my $told =
  q(SELECT md5(string_agg(concat_ws('|', extract(epoch FROM hour), event, reason, events), ' ' ORDER BY hour, event, reason))
	FROM session_activity('-infinity'));
my $true =
  q(SELECT md5(string_agg(concat_ws('|', extract(epoch FROM hour), event, reason, events), ' ' ORDER BY hour, event, reason))
	FROM (SELECT date_trunc('hour', at, 'UTC') AS hour, event, detail ->> 'reason' AS reason, count(*) AS events
		FROM session_events GROUP BY 1, 2, 3) e);
my $counted =
  q(SELECT coalesce(sum(events), 0) FROM session_activity WHERE tenant_id = '');

sub told
{
	my ($server) = @_;
	return $server->safe_psql('postgres', $told,
		extra_params => [ '-U', 'watch' ]);
}

sub add_events
{
	my ($number, $ago, $step) = @_;
	$node->safe_psql(
		'postgres', qq(
		INSERT INTO session_events (at, user_id, tenant_id, event, detail)
		SELECT clock_timestamp() - interval '$ago' + n * interval '$step', 'u' || n % 9, 't' || n % 4,
			CASE n % 3 WHEN 0 THEN 'created' WHEN 1 THEN 'refreshed' ELSE 'invalidated' END,
			CASE n % 3 WHEN 2 THEN '{"reason": "logout"}'::jsonb END
		FROM generate_series(1, $number) AS n));
	return;
}

# The worker counts all but the last minutes
add_events(3000, '50 hours', '58 s');
my $old = $node->safe_psql('postgres',
	"SELECT count(*) FROM session_events WHERE at < now() - interval '11 min'"
);
ok(wait_until(sub { $node->safe_psql('postgres', $counted) >= $old }),
	'the worker counts what is older than some minutes');
create_session($node, 'ann');
is( told($node),
	$node->safe_psql('postgres', $true),
	'the numbers are those of the audit trail, with a login of just now');

# A crash in the midst of counting
add_events(30000, '40 hours', '4 s');
$node->safe_psql('postgres', 'DELETE FROM session_activity');
$node->stop('immediate');
$node->start;
is( told($node),
	$node->safe_psql('postgres', $true),
	'so they are after a crash');
ok( wait_until(
		sub {
			$node->safe_psql('postgres', $counted) >= $old + 30000;
		}),
	'the worker counts again what was lost');
is(told($node), $node->safe_psql('postgres', $true), 'to the same numbers');

# On a standby
$node->wait_for_catchup('standby', 'replay');
is(told($standby), told($node), 'a standby tells the same');
$standby->stop;

# Without maintenance for hours
$node->append_conf('postgresql.conf', 'session_manager.sweep_interval = 1h');
$node->restart;
ok(first_pass($node), 'a pass, and none to follow soon');
$node->safe_psql('postgres', 'TRUNCATE session_events, session_activity');
add_events(250500, '3 hours', '0.02 s');
is( $node->safe_psql(
		'postgres',
		"SELECT sum(events), max(until) < now() - interval '1 hour', min(until) > now() - interval '3 hours' FROM session_activity()"
	),
	'250000|t|t',
	'a call counts so many events and no more, and says up to when');
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				"SET client_min_messages = error; SELECT FROM session_cleanup(); $counted"
			) =~ /\b250500$/;
		}),
	'session_cleanup counts them all');
is(told($node), $node->safe_psql('postgres', $true), 'and rightly');

done_testing();
