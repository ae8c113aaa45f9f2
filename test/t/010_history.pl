# No read that starts after a revocation was acknowledged finds the session.
# Readers, writers and revokers work on the same few sessions at once and write
# down when they asked and what they were told; the record is checked at the
# end.  One machine, so one clock.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $clients = 8;
my $users = 12;
my $seconds = 6 * long_runs();

my $node = new_node(
	'history',
	preload => 'session_manager',
	conf => 'session_manager.touch_interval = 1s');

# known: a token, written down after its creation was acknowledged.  current:
# the newest of each user.  used: a call with a token that found a live
# session.  revoked: from when to when a revocation was under way.
$node->safe_psql(
	'postgres', qq(
	CREATE UNLOGGED TABLE known (u int, token text, session_id uuid, acknowledged timestamptz DEFAULT clock_timestamp());
	CREATE UNLOGGED TABLE current (u int PRIMARY KEY, token text) WITH (fillfactor = 50);
	CREATE UNLOGGED TABLE used (token text, asked timestamptz, how text, found bool);
	CREATE UNLOGGED TABLE revoked (token text, u int, asked timestamptz, acknowledged timestamptz DEFAULT clock_timestamp());
	INSERT INTO current SELECT u, session_token FROM generate_series(1, $users) u, session_create('user-' || u);
	INSERT INTO known (u, token) SELECT u, token FROM current;));

my $pick = <<EOS;
\\set u random(1, $users)
SELECT token AS t FROM current WHERE u = :u \\gset
EOS
my $renew = <<'EOS';
SELECT session_token AS new, session_id AS id FROM session_create('user-' || :u::int) \gset
INSERT INTO known (u, token, session_id) VALUES (:u, :new, :id);
UPDATE current SET token = :new WHERE u = :u;
EOS
my $ask = "SELECT clock_timestamp() AS asked \\gset\n";

# Each call commits by itself before the next statement is sent.
my %scripts = (
	'get@12' => $pick . $ask . <<'EOS',
SELECT count(*) > 0 AS found FROM session_get(:t) \gset
INSERT INTO used VALUES (:t, :asked, 'get', :found);
EOS
	'get_repeatable@3' => $pick . <<'EOS',
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) AS snapshot FROM session_get(:t) \gset
\sleep 5 ms
SELECT clock_timestamp() AS asked \gset
SELECT count(*) > 0 AS found FROM session_get(:t) \gset
INSERT INTO used VALUES (:t, :asked, 'get, repeatable read', :found);
COMMIT;
EOS
	'bind@2' => $pick . $ask . <<'EOS',
SELECT session_bind(:t) AS found \gset
INSERT INTO used VALUES (:t, :asked, 'bind', :found);
EOS
	'update@3' => $pick . $ask . <<'EOS',
SELECT count(*) > 0 AS found FROM session_update(:t, '{"a": 1}') \gset
INSERT INTO used VALUES (:t, :asked, 'update', :found);
EOS
	'refresh@3' => $pick . $ask . <<'EOS',
SELECT status = 'extended' AS found FROM session_refresh(:t) \gset
INSERT INTO used VALUES (:t, :asked, 'refresh', :found);
EOS
	'invalidate@1' => $pick . $ask . <<'EOS' . $renew,
SELECT session_invalidate(:t) AS r \gset
INSERT INTO revoked VALUES (:t, NULL, :asked);
EOS
	'elevate@1' => $pick . $ask . <<'EOS',
SELECT status, session_token AS new FROM session_elevate(:t, '{"amr": ["otp"]}') \gset
INSERT INTO revoked VALUES (:t, NULL, :asked);
INSERT INTO known (u, token) SELECT :u::int, :new::text WHERE nullif(:new::text, '') IS NOT NULL;
UPDATE current SET token = :new WHERE u = :u AND token = :t AND nullif(:new::text, '') IS NOT NULL;
EOS
	'switch@1' => $pick . $ask . <<'EOS',
SELECT status, session_token AS new FROM session_switch_tenant(:t, 'acme') \gset
INSERT INTO revoked VALUES (:t, NULL, :asked);
INSERT INTO known (u, token) SELECT :u::int, :new::text WHERE nullif(:new::text, '') IS NOT NULL;
UPDATE current SET token = :new WHERE u = :u AND token = :t AND nullif(:new::text, '') IS NOT NULL;
EOS
	'invalidate_all@1' => $pick . $ask . <<'EOS' . $renew,
SELECT session_invalidate_all('user-' || :u::int) AS r \gset
INSERT INTO revoked VALUES (NULL, :u, :asked);
EOS
	'login@1' => $pick . $renew,);

my @options;
foreach my $script (sort keys %scripts)
{
	my ($name, $weight) = split /@/, $script;
	my $file = $node->basedir . "/$name.sql";
	write_file($file, $scripts{$script});
	push @options, '-f', "$file\@$weight";
}
my $out = $node->basedir . '/pgbench.out';
my ($code) = finish_all(
	in_parallel(
		$node,
		{
			cmd => [
				'pgbench', '-n', '-M', 'prepared', '-c', $clients,
				'-j', '2', '-T', $seconds, @options,
				$node->connstr('postgres')
			],
			out => $out
		}));
is($code, 0, 'the clients run to the end') or diag slurp_file($out);

# A token is dead from the first acknowledgement on: its own, or that of a
# revocation of all its user's sessions that began when it was known.
$node->safe_psql(
	'postgres', q(
	CREATE TABLE dead AS
		SELECT token, min(acknowledged) AS since FROM (
			SELECT token, acknowledged FROM revoked WHERE token IS NOT NULL
			UNION ALL
			SELECT k.token, r.acknowledged FROM known k JOIN revoked r ON r.u = k.u AND k.acknowledged < r.asked) d
		GROUP BY token;));
my $after = 'FROM used JOIN dead USING (token) WHERE asked > since';
is( $node->safe_psql(
		'postgres', "SELECT how, count(*) $after AND found GROUP BY how"),
	'',
	'no call that began after a revocation found the session');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*) FROM dead, session_get(dead.token, touch => false)'),
	'0',
	'none is alive at the end');

# The record is worth something.
foreach my $how ('get', 'get, repeatable read', 'bind', 'update', 'refresh')
{
	cmp_ok(
		$node->safe_psql(
			'postgres',
			"SELECT count(*) FROM used WHERE how = '$how' AND found"),
		'>', 20,
		"$how: found many sessions");
	cmp_ok(
		$node->safe_psql(
			'postgres', "SELECT count(*) $after AND how = '$how'"),
		'>', 0,
		"$how: asked for revoked ones");
}

done_testing();
