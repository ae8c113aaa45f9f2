# Memory and locks do not grow with the number of sessions that one statement
# works on.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use SessionManagerTest;
use Test::More;

# A small share of memory that every process counts as its own.
my $node = new_node('main',
	conf => "shared_buffers = 8MB\nfsync = off\nautovacuum = off");

# The most memory, in MB, that a new connection takes up for a statement.
sub peak
{
	my ($sql) = @_;
	my @lines = split /\n/, $node->safe_psql(
		'postgres', qq(
		SET client_min_messages = warning;
		$sql;
		SELECT (regexp_match(pg_read_file('/proc/' || pg_backend_pid() || '/status'), 'VmHWM:\\s+(\\d+)'))[1]::int / 1024)
	);
	return $lines[-1];
}

my $small = 50;
my $large = 1000;
$node->safe_psql(
	'postgres', qq(
	SELECT FROM (VALUES ('small', $small), ('large', $large)) AS u(id, n), generate_series(1, n) AS i,
		session_create(u.id, jsonb_build_object('i', i, 'a', repeat('x', 60000)), tenant_id => u.id))
);

my %statements = (
	session_list => q(SELECT * FROM session_list('%s', max_rows => 1000)),
	'session_list, ended ones too' =>
	  q(SELECT * FROM session_list('%s', include_ended => true, max_rows => 1000)),
	session_update_user => q(SELECT session_update_user('%s', '{"b": 1}')),
	session_reencrypt => q(SELECT session_reencrypt(1000) /* %s */),
	session_active_count => q(SELECT session_active_count(user_id => '%s')),
	session_history =>
	  q(SELECT * FROM session_history(user_id => '%s', max_rows => 1000)),
	session_invalidate_all =>
	  q(BEGIN; SELECT session_invalidate_all('%s'); ROLLBACK),
	session_invalidate_tenant =>
	  q(BEGIN; SELECT session_invalidate_tenant('%s'); ROLLBACK),
	session_erase => q(BEGIN; SELECT session_erase('%s'); ROLLBACK),
	'session_create under a limit' =>
	  q(SET session_manager.max_sessions_per_user = 1; BEGIN; SELECT * FROM session_create('%s'); ROLLBACK)
);

for my $name (sort keys %statements)
{
	my ($few, $many) =
	  map { peak(sprintf $statements{$name}, $_) } ('small', 'large');
	note("$name: $few MB for $small sessions, $many MB for $large");
	# the data of the large user's sessions are 57 MB
	cmp_ok($many, '<', $few + 25, "$name works on one session at a time");
}

# Nor does a scan keep what it has decoded of each row: here user agents, which
# are stored compressed.
$node->safe_psql(
	'postgres', q(
	SELECT FROM generate_series(1, 20000) AS i,
		session_create('compressed' || i % 2, jsonb_build_object('a', repeat('x', 1400)),
			user_agent => repeat('Mozilla/5.0 ', 42), idle_timeout => '1 hour'))
);
%statements = (
	session_active_count => 'SELECT session_active_count()',
	'session_active_count of a user' =>
	  q(SELECT session_active_count(user_id => 'compressed1')),
	session_list => q(SELECT session_id FROM session_list('compressed1')),
	session_invalidate_everything =>
	  'BEGIN; SELECT session_invalidate_everything(); ROLLBACK');
my $base = peak(q(SELECT session_active_count(user_id => 'small')));
for my $name (sort keys %statements)
{
	my $peak = peak($statements{$name});
	note("$name: $peak MB, $base MB for few sessions");
	cmp_ok($peak, '<', $base + 8, "$name forgets each row");
}
$node->safe_psql('postgres',
	"DELETE FROM user_sessions WHERE user_id ~ '^compressed'; VACUUM user_sessions"
);

# What is exported is held as text, twice: not more.
my ($few, $many) =
  map { peak("SELECT session_export('$_')") } ('small', 'large');
note("session_export: $few MB for $small sessions, $many MB for $large");
cmp_ok(
	$many, '<',
	$few + 57 * 5,
	'session_export holds little more than its result');

# Any number of users in one statement
is( $node->safe_psql(
		'postgres', q(
		SELECT count(*) FROM generate_series(1, 100000) AS i, session_create('u' || i))
	),
	'100000',
	'100,000 users log in in one transaction');
is( $node->safe_psql('postgres', 'SELECT session_active_count()'),
	100000 + $small + $large,
	'and all of them are in');
is( $node->safe_psql(
		'postgres', q(
		SELECT sum(session_invalidate_all('u' || i)) FROM generate_series(1, 50000) AS i)
	),
	'50000',
	'50,000 are signed out in one transaction');

# An estimate reads the same number of pages of a table of any size.
my $live = $small + $large + 50000;
my $plan = $node->safe_psql(
	'postgres', q(
	SELECT session_active_count(user_id => 'none') \gset
	EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT session_active_estimate()));
my ($hit, $read) =
  $plan =~ /"Shared Hit Blocks": (\d+),\s+"Shared Read Blocks": (\d+)/;
my $pages = $node->safe_psql('postgres',
	"SELECT pg_relation_size('user_sessions') / 8192");
note("$hit buffers found and $read read of $pages pages");
cmp_ok($hit + $read, '<', 1100, 'an estimate reads a sample of the pages');
cmp_ok($pages, '>', 4000, 'which have many more');
my $estimate =
  $node->safe_psql('postgres', 'SELECT session_active_estimate()');
# five times the standard error, if whole pages were either live or not
cmp_ok(abs($estimate - $live) / $live,
	'<', 0.25, "$estimate are estimated where $live are live");
is( $node->safe_psql(
		'postgres', q(
		CREATE TABLE token AS SELECT session_token FROM generate_series(1, 20000) AS i, session_create('w' || i);
		SELECT count(*) FROM token WHERE session_invalidate(session_token) IS NOT NULL)
	),
	'20000',
	'and 20,000 by their tokens');

done_testing();
