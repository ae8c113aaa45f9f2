# A hot standby answers session_get and refuses every writer; what the primary
# revokes is gone there after replay; a promoted standby writes.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $primary = new_node(
	'primary',
	preload => 'session_manager',
	streaming => 1,
	conf => 'session_manager.flush_interval = 1s');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub replay
{
	$primary->wait_for_catchup('standby', 'replay');
	return;
}

my $token = create_session($primary, 'ann', q('{"plan": "pro"}'));
my $old = create_session($primary, 'bob');
my $new = $primary->safe_psql('postgres',
	"SELECT session_token FROM session_refresh('$old', true)");
my $elevated = create_session($primary, 'carl');
$primary->safe_psql('postgres', "SELECT session_elevate('$elevated', '{}')");
my $staff = create_session($primary, 'staff');
my $acted = $primary->safe_psql('postgres',
	"SELECT session_token FROM session_create('dora', actor_token => '$staff')"
);
my $idle = $primary->safe_psql('postgres',
	"SELECT session_token FROM session_create('idle', idle_timeout => '30 min')"
);

# Make a touch due.
$primary->safe_psql('postgres',
	"UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE user_id = 'ann'"
);
replay();

# Reads
is( $standby->safe_psql(
		'postgres',
		"SELECT user_id, data, version, now() - last_seen_at > '50 minutes' FROM session_get('$token', '192.0.2.7', 'Firefox')"
	),
	'ann|{"plan": "pro"}|1|t',
	'session_get reads on a standby, and does not write when a touch is due');

# Whether one is due, for whoever can have it recorded on the primary
sub touch_due
{
	my ($node, $arguments) = @_;
	return $node->safe_psql('postgres',
		"SELECT session_get_json($arguments) ->> 'touch_due'");
}

is(touch_due($standby, "'$token'"), 'true', 'and says that one is');
is(touch_due($standby, "'$token', touch => false"),
	'true', 'whether or not it should be recorded');
is(touch_due($standby, "'$old'"),
	'false', 'the old token of a rotation leaves none');
is(touch_due($standby, "'$new'"), 'true', 'the first use of the new one is');
is(touch_due($primary, "'$new'"), 'false', 'the primary records it');
ok(wait_until(sub { touch_due($standby, "'$new'") eq 'false' }),
	'after which none is due on the standby');
my $bound = $primary->safe_psql('postgres',
	"SELECT session_token FROM session_create('ben', ip => '192.0.2.1')");
replay();
my $binding = 'SET session_manager.client_binding = log; ';
is(touch_due($standby, "'$bound', '192.0.2.99'"),
	'false', 'a client within its network leaves none');
is(touch_due($standby, "'$bound', '203.0.113.7'"),
	'false', 'nor one that has moved, as long as that does not matter');
is( $standby->safe_psql(
		'postgres',
		"$binding SELECT session_get_json('$bound', '203.0.113.7') ->> 'touch_due', session_get_json('$bound', '192.0.2.99') ->> 'touch_due'"
	),
	'true|false',
	'with client_binding it does');
is(live($standby, digest_form($token)), '1', 'the digest form works');
is(live($standby, $new), '1', 'the new token of a rotation works');
is(live($standby, $old), '1', 'the old one within its grace');
is(live($standby, $elevated), '0', 'the old one of session_elevate does not');
is( $standby->safe_psql(
		'postgres', "SELECT user_id, actor_id FROM session_get('$acted')"),
	'dora|staff',
	'a session in which somebody else acts works');
is(live($standby, $idle), '1', 'so does one with its own idle timeout');
$primary->safe_psql('postgres',
	"SELECT session_invalidate('$staff'); UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE user_id = 'idle'"
);
replay();
is( $standby->safe_psql(
		'postgres',
		"SELECT count(g), session_status('$acted') FROM (VALUES (1)) AS v LEFT JOIN session_get('$acted') AS g ON true"
	),
	'0|actor_ended',
	'and ends with that person\'s own session');
is($standby->safe_psql('postgres', "SELECT session_status('$idle')"),
	'idle', 'as its idle timeout ends the other one');
is( $standby->safe_psql(
		'postgres',
		"SELECT count(*), bool_and(is_current) FROM session_list('ann', '$token')"
	),
	'1|t',
	'session_list works');
is($standby->safe_psql('postgres', "SELECT session_status('$token')"),
	'active', 'session_status works');
is( $standby->safe_psql(
		'postgres', "SELECT coalesce(session_end_reason('$token'), 'lives')"),
	'lives',
	'session_end_reason works');
is( $standby->safe_psql(
		'postgres', "SELECT session_bind('$token'), session_user_id()"),
	't|ann',
	'session_bind works');
is( $standby->safe_psql(
		'postgres',
		"SELECT session_export('ann')::jsonb -> 'sessions' -> 0 -> 'data'"),
	'{"plan": "pro"}',
	'session_export works');
is( $standby->safe_psql('postgres', "SELECT session_active_count()"),
	$primary->safe_psql('postgres', "SELECT session_active_count()"),
	'session_active_count works');
cmp_ok(
	$standby->safe_psql('postgres', "SELECT count(*) FROM session_history()"),
	'>', 0, 'session_history works');
is( $standby->safe_psql(
		'postgres', "SELECT key_id, state, available FROM session_keys()"),
	'1|active|t',
	'session_keys works');
cmp_ok($standby->safe_psql('postgres', "SELECT count(*) FROM session_info()"),
	'>', 0, 'session_info works');

# Writers
my $keys = slurp_file(key_file($primary));
foreach my $call (
	"session_create('ann')",
	"session_update('$token', '{}')",
	"session_refresh('$token')",
	"session_refresh('$token', true)",
	"session_refresh('$old', true)",
	"session_elevate('$token', '{}')",
	"session_switch_tenant('$token', 'acme')",
	"session_invalidate('$token')",
	"session_invalidate_id((SELECT session_id FROM session_get('$token')))",
	"session_invalidate_all('ann')",
	"session_update_user('ann', '{}')",
	"session_invalidate_tenant('acme')",
	"session_invalidate_everything()",
	"session_cleanup()",
	"session_erase('ann')",
	"session_key_generate()",
	"session_key_add(2)",
	"session_key_activate(1)",
	"session_key_retire(1)",
	"session_key_revoke(1)",
	"session_reencrypt()",
	"session_hand_over()",
	"session_grant('postgres', 'app')",
	"session_revoke('postgres', 'app')")
{
	(my $name = $call) =~ s/\(.*?(, true)?\)$/$1 ? '(rotate)' : ''/e;
	like(failure($standby, "SELECT $call"),
		qr/^25006:/, "$name is refused on a standby");
}
is(slurp_file(key_file($primary)), $keys, 'the key file is as it was');

# Revocation, also inside a transaction that began before it
my $reader = connection($standby);
query($reader, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
is(query($reader, "SELECT user_id FROM session_get('$token')"),
	'ann', 'a transaction on the standby sees the session');
$primary->safe_psql('postgres', "SELECT session_invalidate('$token')");
replay();
is(query($reader, "SELECT count(*) FROM session_get('$token')"),
	'0', 'and no longer once the revocation is replayed');
query($reader, 'COMMIT');

# Keys that change on the primary reach an open connection of the standby.
append_to_file(key_file($primary), '2:' . random_key() . "\n");
$primary->safe_psql('postgres',
	'SELECT session_key_add(2), session_key_activate(2)');
my $second = create_session($primary, 'dora');
replay();
ok( wait_until(
		sub {
			query($reader, "SELECT count(*) FROM session_get('$second')") eq
			  '1';
		}),
	'a session under a new key opens on the standby');
is(query($reader, "SELECT count(*) FROM session_get('$new')"),
	'1', 'a session under the first key still does');
$primary->safe_psql('postgres', 'SELECT session_key_revoke(1)');
replay();
is(query($reader, "SELECT count(*) FROM session_get('$new')"),
	'0', 'and is dead once the revocation of its key is replayed');
is(query($reader, "SELECT count(*) FROM session_get('$second')"),
	'1', 'the other key is not touched');

# Promotion
$primary->stop;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
  or die 'the standby is not promoted';
is(query($reader, "SELECT status FROM session_refresh('$second')"),
	'extended', 'a connection opened before the promotion writes after it');
my $third = create_session($standby, 'emma');
is(live($standby, $third), '1', 'a session is created after promotion');
is( $standby->safe_psql(
		'postgres',
		qq(SELECT version FROM session_update('$third', '{"a": 1}'))),
	'2',
	'updated');
is(live($standby, $token), '0', 'what the primary revoked stays revoked');
is($standby->safe_psql('postgres', "SELECT session_invalidate('$third')"),
	'emma', 'revoked');
is(query($reader, "SELECT count(*) FROM session_get('$third')"),
	'0', 'and seen by the very next call of another connection');
$reader->quit;

done_testing();
