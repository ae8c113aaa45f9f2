# The recipe for logical replication in docs/deployment.md: a server that is
# filled by a subscription opens every session, hears of every revocation, and
# takes over.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $key = random_key();
my $old = new_node(
	'old',
	preload => 'session_manager',
	streaming => 1,
	key => $key,
	conf => "wal_level = logical\nsession_manager.sweep_interval = 1s");
my $new = new_node(
	'new',
	preload => 'session_manager',
	key => $key,
	extension => 0,
	conf =>
	  "wal_level = logical\nsession_manager.sweep_interval = 1s\nsession_manager.databases = 'none'"
);

my $before = create_session($old, 'ann', q('{"plan": "pro"}'));
my $rotated = create_session($old, 'bob');
my $successor = $old->safe_psql('postgres',
	"SELECT session_token FROM session_refresh('$rotated', true)");

# As the page has it, on the old server and on the new one.
$old->safe_psql(
	'postgres', q(
	CREATE PUBLICATION sessions FOR TABLE session_installation, session_keys, session_issuers, user_sessions;
	CREATE PUBLICATION session_audit FOR TABLE session_events
		WITH (publish = 'insert', publish_via_partition_root = true);));
$new->safe_psql('postgres',
	'SET client_min_messages = warning; CREATE EXTENSION session_manager CASCADE'
);
my $connection = $old->connstr . ' dbname=postgres';
$new->safe_psql('postgres',
	"CREATE SUBSCRIPTION sessions CONNECTION '$connection' PUBLICATION sessions, session_audit"
);
$new->wait_for_subscription_sync($old, 'sessions');

is(live($new, $before), '1', 'a session from before the subscription opens');
is( $new->safe_psql('postgres', "SELECT data FROM session_get('$before')"),
	'{"plan": "pro"}',
	'with its data');
is(live($new, $successor), '1', 'the token of a rotation works');

# A connection that has read the keys before they change.
my $watching = connection($new);
query($watching, "SELECT count(*) FROM session_get('$before')");

my $after = create_session($old, 'cyd');
$old->safe_psql('postgres', "SELECT session_invalidate('$before')");
$old->wait_for_catchup('sessions');
is(live($new, $after), '1', 'a login arrives');
is(live($new, $before), '0', 'a revocation arrives');

append_to_file(key_file($_), '2:' . unpack('H*', 'k' x 32) . "\n")
  for ($old, $new);
$old->safe_psql('postgres',
	'SELECT session_key_add(2), session_key_activate(2)');
my $second = create_session($old, 'dan');
$old->wait_for_catchup('sessions');
is(query($watching, "SELECT count(*) FROM session_get('$second')"),
	'1', 'a new key arrives, in open connections as well');
$old->safe_psql('postgres', 'SELECT session_key_revoke(1)');
$old->wait_for_catchup('sessions');
is(query($watching, "SELECT count(*) FROM session_get('$after')"),
	'0', 'the revocation of a key arrives, in open connections as well');
$watching->quit;

my $events = 'SELECT count(*), max(event_id) FROM session_events';
is( $new->safe_psql('postgres', $events),
	$old->safe_psql('postgres', $events),
	'the audit trail arrives once');

# Erasing a user updates events, which have no replica identity.
is($old->safe_psql('postgres', "SELECT session_erase('ann')"),
	'1', 'session_erase works on the publisher');
$old->wait_for_catchup('sessions');
is( $new->safe_psql(
		'postgres',
		"SELECT count(*) FROM user_sessions WHERE user_id = 'ann'"),
	'0',
	'and its deletion of sessions arrives');

# Switching over
my $last = $old->safe_psql('postgres',
	"SELECT last_value FROM session_events_event_id_seq");
$old->wait_for_catchup('sessions');
$new->safe_psql('postgres', 'DROP SUBSCRIPTION sessions');
$old->stop;
$new->safe_psql('postgres',
	"SELECT setval('session_events_event_id_seq', $last + 1000)");
$new->append_conf('postgresql.conf', "session_manager.databases = ''");
$new->reload;

is(live($new, $second), '1', 'after the switch sessions live on');
my $login = create_session($new, 'eve', q('{}', ttl => '1 second'));
is( $new->safe_psql(
		'postgres', "SELECT status FROM session_refresh('$second')"),
	'extended',
	'and are written to');
ok( wait_until(
		sub {
			$new->safe_psql('postgres',
				"SELECT count(*) FROM user_sessions WHERE user_id = 'eve'")
			  eq '0';
		}),
	'and are swept');

done_testing();
