# Re-sealing in the background once another key is active.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $sessions = 5000;
my $node = new_node(
	'reseal',
	preload => 'session_manager',
	conf => qq(
session_manager.sweep_interval = 1s
restart_after_crash = on
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub resealing
{
	return value("SELECT value FROM session_info() WHERE key = 'resealing'");
}

value(
	qq(CREATE TABLE tokens AS SELECT session_token AS token FROM generate_series(1, $sessions) AS i,
	session_create('user' || i % 100, jsonb_build_object('n', i))));
ok( wait_until(sub { resealing() eq 'done' }),
	'with one key there is nothing to do');

# A session that somebody is writing to does not hold up the others.
my $holder = connection($node);
query($holder,
	q(BEGIN; SELECT count(*) FROM session_update((SELECT token FROM tokens LIMIT 1), '{"held": true}');)
);
value('SELECT session_key_generate()');
value('SELECT session_key_activate(2)');
like(resealing(), qr/^under way to key 2/, 'after an activation there is');
ok( wait_until(
		sub {
			value('SELECT count(*) FROM user_sessions WHERE key_id = 1') <= 1;
		},
		60),
	'every other session gets the new seal');
query($holder, 'COMMIT');
$holder->quit;
ok(wait_until(sub { resealing() eq 'done' }), 'and that one in the end');
is(value('SELECT count(*) FROM user_sessions WHERE key_id = 1'),
	0, 'none is left');
is( value(
		"SELECT count(*) FROM tokens, session_get(tokens.token, touch => false) AS g WHERE g.data ? 'n'"
	),
	$sessions,
	'and all of them open');
like(
	failure($node, 'SELECT session_key_retire(1)'),
	qr/^55006: .*\n.*verifies the tokens of $sessions/,
	'verifiers hold the old key');
value('SELECT count(*) FROM tokens, session_refresh(tokens.token)');
value('SELECT session_key_retire(1)');
is(value('SELECT state FROM session_keys() WHERE key_id = 1'),
	'retired', 'until the sessions are refreshed');

# A crash in the middle
value('SELECT session_key_generate()');
value('SELECT session_key_activate(3)');
my $moved = 0;

sub answer
{
	my ($sql) = @_;
	return if_there($node, $sql);
}

for my $round (1 .. 3)
{
	wait_until(
		sub {
			(answer('SELECT count(*) FROM user_sessions WHERE key_id = 3')
				  || 0) > $moved;
		},
		10);
	my $pid = answer(
		"SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'session_manager worker'"
	) || 0;
	kill 'KILL', $pid if $pid > 0;
	ok( wait_until(
			sub {
				answer(
					"SELECT value FROM session_info() WHERE key = 'workers'")
				  =~ /^on/;
			}),
		"round $round: the server is back");
	$moved =
	  answer('SELECT count(*) FROM user_sessions WHERE key_id = 3') || $moved;
}
wait_until(sub { answer('SELECT 1') eq '1' });
ok( wait_until(
		sub {
			answer("SELECT value FROM session_info() WHERE key = 'resealing'")
			  eq 'done';
		},
		60),
	'a crash stops it for a while only');
is(value('SELECT count(*) FROM user_sessions WHERE key_id <> 3'),
	0, 'none is left');
is( value(
		"SELECT count(*) FROM tokens, session_get(tokens.token, touch => false) AS g WHERE g.data ? 'n'"
	),
	$sessions,
	'and all of them open');

# A session whose seal does not open holds up no other, and is reported.
create_session($node, 'corrupt');
value(
	"UPDATE user_sessions SET sealed_data = overlay(sealed_data PLACING '\\x00000000' FROM 40) WHERE user_id = 'corrupt'"
);
value('SELECT session_key_activate(session_key_generate())');
ok( wait_until(sub { resealing() eq 'done' }, 60),
	'another key is made the active one');
is( value(
		"SELECT string_agg(user_id, ' ') FROM user_sessions WHERE key_id <> 4"
	),
	'corrupt',
	'and nothing left under the old one but what is corrupt');
like(
	value("SELECT value FROM session_info() WHERE key = 'errors_resealing'"),
	qr/^[1-9]\d*, the last at .*: SM004: data of session [-0-9a-f]{36} is corrupt$/,
	'which is reported');
cmp_ok(value('SELECT resealing_failed FROM session_stats'),
	'>', 0, 'and counted');
value("DELETE FROM user_sessions WHERE user_id = 'corrupt'");

# Where no worker comes, nothing is under way.
$node->append_conf('postgresql.conf', "session_manager.databases = 'other'");
$node->reload;
ok( wait_until(
		sub {
			value("SELECT value FROM session_info() WHERE key = 'workers'")
			  =~ /^off/;
		}),
	'the database is not looked after any more');
value('SELECT session_key_generate()');
value('SELECT session_key_activate(5)');
is( resealing(),
	'pending for key 5: no worker does it; call session_reencrypt() until it returns 0',
	'which session_info() says of the next change of keys, and what to do');
value('SELECT session_reencrypt(100000)');
is(value('SELECT count(*) FROM user_sessions WHERE key_id <> 5'),
	0, 'and that works');
$node->stop;

done_testing();
