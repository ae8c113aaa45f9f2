# Counters and notifications.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $node = new_node(
	'stats',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1h
session_manager.flush_interval = 1h
session_manager.rotation_grace = 0
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Which counters a statement moves, and by how much.
sub moves
{
	my ($name, $sql, $expected) = @_;
	value('SELECT session_stats_reset()');
	$node->psql('postgres', $sql);
	my $moved = value(
		q(
		SELECT string_agg(key || '=' || value, ' ' ORDER BY key)
		FROM session_stats AS s, jsonb_each_text(to_jsonb(s))
		WHERE database_name = 'postgres' AND value <> '0'
		AND key NOT IN ('database_name', 'database_id', 'touches_pending', 'last_pass_at', 'last_pass_age', 'next_pass_at', 'stats_reset'))
	);
	is($moved, $expected, $name);
	return;
}

ok(first_pass($node), 'the first pass is over');

my $token = create_session($node, 'ann');
my $guess = $token;
substr($guess, -1) = substr($guess, -1) eq 'A' ? 'B' : 'A';
my $expired = create_session($node, 'ann', "ttl => '1 microsecond'");
my $idle = create_session($node, 'ann');
my $revoked = create_session($node, 'ann');
value("SELECT session_invalidate('$revoked')");

moves('create', "SELECT session_create('bea')", 'sessions_created=1');
moves('get', "SELECT session_get('$token')", 'gets_hit=1');
moves('get: unknown', "SELECT session_get('sm1_' || repeat('A', 64))",
	'gets_unknown=1');
moves('get: malformed', "SELECT session_get('sm1_')", 'gets_malformed=1');
moves('get: wrong secret', "SELECT session_get('$guess')", 'gets_rejected=1');
moves('get: expired', "SELECT session_get('$expired')", 'gets_expired=1');
moves('get: revoked', "SELECT session_get('$revoked')", 'gets_revoked=1');
moves(
	'get: idle',
	"UPDATE user_sessions SET last_seen_at = now() - interval '1 hour' WHERE user_id = 'ann' AND revoked_at IS NULL;
	SET session_manager.idle_timeout = '10min'; SELECT session_get('$idle')",
	'gets_idle=1');
moves(
	'get with a touch',
	"SELECT session_get('$token')",
	'gets_hit=1 touches_buffered=1');
moves('update', "SELECT session_update('$token', '{\"n\": 1}')", 'updates=1');
moves('refresh', "SELECT session_refresh('$token')", 'refreshes=1');
my $new = value(
	"SELECT session_token FROM session_refresh('$token', rotate => true)");
moves('rotate', "SELECT session_refresh('$new', rotate => true)",
	'rotations=1');
moves(
	'elevate',
	"SELECT session_elevate(session_token, '{\"amr\": [\"otp\"]}') FROM session_create('cat')",
	'elevations=1 sessions_created=1');
my $old = create_session($node, 'dan');
$new =
  value("SELECT session_token FROM session_refresh('$old', rotate => true)");
value("SELECT session_get('$new')");
moves(
	'replay',
	"SELECT session_refresh('$old')",
	'invalidated_other=1 replays=1');
my $out = create_session($node, 'eve');
moves('logout', "SELECT session_invalidate('$out')", 'invalidated_logout=1');
value(
	"SELECT count(*) FROM generate_series(1, 3) AS i, session_create('fay', jsonb_build_object('i', i))"
);
moves(
	'sign-out everywhere',
	"SELECT session_invalidate_all('fay')",
	'invalidated_logout_all=3');
value("SELECT session_create('gil', tenant_id => 'acme')");
moves('administrator', "SELECT session_invalidate_tenant('acme')",
	'invalidated_admin=1');
value("SELECT session_create('hal')");
moves(
	'limit: evict',
	"SET session_manager.max_sessions_per_user = 1; SELECT session_create('hal')",
	'evictions=1 sessions_created=1');
moves(
	'limit: deny',
	"SET session_manager.max_sessions_per_user = 1; SET session_manager.on_limit = deny; SELECT session_create('hal')",
	'logins_denied=1');
moves(
	'a login that fails',
	"SELECT session_create('jay', ttl => '-1 s')",
	'logins_failed=1');
value(
	"SELECT session_create('ivy', ttl => '1 microsecond') FROM generate_series(1, 2)"
);
moves('sweep', 'SELECT session_cleanup()', 'sessions_swept=3');
value('SELECT session_key_generate()');
value('SELECT session_key_activate(2)');
my $count = value('SELECT count(*) FROM user_sessions WHERE key_id = 1');
moves('re-seal', 'SELECT session_reencrypt(100000)',
	"sessions_resealed=$count");

# Privileges, databases, restarts
$node->safe_psql('postgres',
	'CREATE ROLE looks LOGIN; CREATE ROLE works LOGIN;');
value(
	"SELECT session_grant('looks', 'monitor'), session_grant('works', 'app')"
);
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM session_stats",
		extra_params => [ '-U', 'looks' ]),
	1,
	'who has bundle monitor may look');
my ($status, $stdout, $stderr) = $node->psql(
	'postgres',
	'SELECT * FROM session_stats',
	extra_params => [ '-U', 'works' ]);
like($stderr, qr/permission denied/, 'who has bundle app may not');
($status, $stdout, $stderr) = $node->psql(
	'postgres',
	'SELECT session_stats_reset()',
	extra_params => [ '-U', 'looks' ]);
like($stderr, qr/permission denied/, 'and who looks cannot reset');

$node->safe_psql('postgres', 'CREATE DATABASE other');
install_extension($node, 'other');
$node->safe_psql('other', "SELECT session_create('ann')");
value('SELECT session_stats_reset()');
is( value(
		"SELECT string_agg(database_name || '=' || sessions_created, ' ' ORDER BY database_name) FROM session_stats"
	),
	'other=1 postgres=0',
	'one row for each database');
$node->restart;
is( value(
		"SELECT sessions_created FROM session_stats WHERE database_name = 'other'"
	),
	1,
	'a clean restart keeps the counters');
my $pid = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
my @children = split /\n/, `ps -o pid= --ppid $pid`;
$node->kill9;
wait_until(
	sub {
		!grep { kill 0, $_ } $pid, @children;
	});
# (a worker that had just begun may hold the shared memory for a while)
wait_until(sub { $node->start(fail_ok => 1) }) or die 'no start';
is( value(
		"SELECT coalesce(max(sessions_created), 0) FROM session_stats WHERE database_name = 'other'"
	),
	0,
	'a crash does not');
$node->safe_psql('postgres', 'DROP DATABASE other');

# Notifications
my $listener = connection($node);
query($listener, 'LISTEN session_revoked');
my $quiet = create_session($node, 'ann');
value("SELECT session_invalidate('$quiet')");
my ($output) = query($listener, 'SELECT 1');
unlike($output, qr/Asynchronous/, 'without the setting nobody is told');
$node->append_conf('postgresql.conf', 'session_manager.notify = on');
$node->reload;

sub told
{
	my ($name, $sql, $user, $reason) = @_;
	value($sql);
	my $heard = '';
	wait_until(
		sub {
			$heard .= query($listener, 'SELECT pg_sleep(0.05)');
			return $heard =~
			  /Asynchronous notification "session_revoked" with payload/;
		},
		10);
	like(
		$heard,
		qr/payload "\{(?=.*"session_id": "[0-9a-f-]{36}")(?=.*"user_id": "$user")(?=.*"reason": "$reason").*\}" received/,
		$name);
	return;
}
my $loud = create_session($node, 'bea');
told('logout', "SELECT session_invalidate('$loud')", 'bea', 'logout');
create_session($node, 'cat');
told(
	'sign-out everywhere', "SELECT session_invalidate_all('cat')",
	'cat', 'logout_all');
create_session($node, 'dora');
told(
	'eviction',
	"SET session_manager.max_sessions_per_user = 1; SELECT session_create('dora')",
	'dora',
	'evicted');
$old = create_session($node, 'eve');
$new =
  value("SELECT session_token FROM session_refresh('$old', rotate => true)");
value("SELECT session_get('$new')");
told(
	'a replay that is rolled back',
	"BEGIN; SELECT session_refresh('$old'); ROLLBACK",
	'eve', 'token_reused');
my $kept = create_session($node, 'fay');
value("BEGIN; SELECT session_invalidate('$kept'); ROLLBACK");
unlike(query($listener, 'SELECT pg_sleep(0.2)'),
	qr/Asynchronous/, 'but not of what was rolled back');
$listener->quit;
$node->stop;

done_testing();
