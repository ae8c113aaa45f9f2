# An open snapshot keeps what the sweep deletes in the index: the sweep does
# not walk over it again and again, nor does session_info().

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $n = 6000;
my $node = new_node(
	'snapshot',
	preload => 'session_manager',
	conf => qq(
session_manager.databases = 'nowhere'
session_manager.sweep_interval = 1s
session_manager.sweep_batch = 50
session_manager.sweep_pause = 100ms
autovacuum = off
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub index_reads
{
	return value(
		"SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'user_sessions_sweep_at_idx'"
	);
}

sub next_sweep
{
	return value("SELECT value FROM session_info() WHERE key = 'next_sweep'");
}

value(
	"SELECT count(*) FROM generate_series(1, $n) AS i, session_create('u' || i % 100, ttl => '1 hour')"
);
value(
	"UPDATE user_sessions SET expires_at = expires_at - interval '1 d', sweep_at = sweep_at - interval '1 d'"
);
value('VACUUM user_sessions');
my $snapshot = connection($node);
query($snapshot,
	'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM session_keys'
);

# In more than one pass.  What passes read that find nothing left does not count.
my ($reads, $read) = (index_reads(), 0);
$node->append_conf('postgresql.conf', "session_manager.databases = ''");
$node->reload;
ok( wait_until(
		sub {
			my ($left, $sum) = split /\|/,
			  value(
				"SELECT (SELECT count(*) FROM user_sessions), idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'user_sessions_sweep_at_idx'"
			  );
			$read = $sum - $reads if $left > 0;
			return $left == 0;
		},
		180),
	'all dead sessions go');
my $sweeps = value('SELECT sweeps FROM session_stats');
cmp_ok($sweeps, '>', 4, 'in several passes');
# the entries that a pass left stand before those that it went on with
cmp_ok($read, '>', 0, 'which were looked at under way');
cmp_ok($read / $n, '<', 2.5, 'each index entry is read about once');
is(query($snapshot, 'SELECT count(*) FROM user_sessions'),
	$n, 'the snapshot still sees the sessions');

# What is due before that is found all the same.
my $early = create_session($node, 'early');
value(
	"UPDATE user_sessions SET expires_at = now() - interval '2 d', sweep_at = now() - interval '2 d'"
);
ok(wait_until(sub { value('SELECT count(*) FROM user_sessions') == 0 }),
	'what comes to be due earlier goes too');

# Nor does it walk again and again over the rows of many that are due at one
# and the same time.
sub heap_reads
{
	return value(
		"SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'user_sessions'"
	);
}

value(
	"SELECT count(*) FROM generate_series(1, $n) AS i, session_create('u' || i % 100, ttl => '1 hour')"
);
$node->append_conf('postgresql.conf',
	"session_manager.sweep_batch = 10\nsession_manager.sweep_pause = 0");
$node->reload;
value(
	"UPDATE user_sessions SET expires_at = now() - interval '1 d', sweep_at = now() - interval '1 d'"
);
$reads = heap_reads();
ok( wait_until(
		sub { value('SELECT EXISTS (SELECT FROM user_sessions)') eq 'f' },
		180),
	'those of one time go');
cmp_ok((heap_reads() - $reads) / $n,
	'<', 12, 'each row is looked at about once');

# Without a walk through the dead
$node->append_conf('postgresql.conf',
	"session_manager.databases = 'nowhere'");
$node->reload;
ok(no_worker($node, 'postgres'), 'no pass is under way');
$reads = index_reads();
like(
	next_sweep(),
	qr/^(nothing to sweep|unknown: behind deleted sessions)/,
	'session_info() finds nothing');
my $token = create_session($node, 'late');
like(
	next_sweep(),
	qr/^(\d{4}-|unknown: behind deleted sessions)/,
	'or what is due next');
cmp_ok(index_reads() - $reads, '<', 5000, 'without looking for long');

query($snapshot, 'COMMIT');
value('VACUUM user_sessions');
like(next_sweep(), qr/^\d{4}-/, 'and finds it once the dead are gone');

# The sweep found nothing due, so it stands at the beginning, when others than
# it delete.
my $sweep_count = value('SELECT sweeps FROM session_stats');
$node->append_conf('postgresql.conf', "session_manager.databases = ''");
$node->reload;
ok( wait_until(
		sub { value('SELECT sweeps FROM session_stats') > $sweep_count + 1 }),
	'passes find nothing');
$node->append_conf('postgresql.conf',
	"session_manager.databases = 'nowhere'");
$node->reload;
ok(no_worker($node, 'postgres'), 'no pass is under way');
query($snapshot,
	'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM session_keys'
);
value(
	"SELECT count(*) FROM generate_series(1, 1000) AS i, session_create('u' || i, ttl => '1 hour')"
);
value(
	"UPDATE user_sessions SET expires_at = now() - interval '1 d', sweep_at = now() - interval '1 d'"
);
cmp_ok(value('SELECT sessions_deleted FROM session_cleanup()'),
	'>=', 1000, 'session_cleanup() deletes them');
is( value(
		"SET statement_timeout = '30s'; SELECT value FROM session_info() WHERE key = 'next_sweep'"
	),
	'unknown: behind deleted sessions that VACUUM cannot remove yet',
	'session_info() gives up looking');
query($snapshot, 'COMMIT');
$snapshot->quit;
$node->stop;

done_testing();
