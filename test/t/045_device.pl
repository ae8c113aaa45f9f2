# Sessions that are bound to a device: on a standby, over restarts and keys, in
# transactions that write nothing, at once in two connections; what listeners and
# the audit trail hear of a thief.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

# RFC 7517, appendix A.1
my $key =
  '{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}';

my $node = new_node(
	'device',
	preload => 'session_manager',
	streaming => 1,
	conf => q(
session_manager.notify = on
session_manager.device_proof_lifetime = 1h
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# A session that is bound: its token and a proof for it
sub bound
{
	my ($user) = @_;
	return split /\|/, value(
		qq(
		SELECT b.session_token, b.proof FROM session_create('$user') AS s,
			session_bind_device(s.session_token, '$key', session_device_challenge(s.session_token)) AS b)
	);
}

# A statement where the time without a proof, and all others, are over
sub later
{
	my ($sql, $where) = @_;
	return ($where // $node)
	  ->safe_psql('postgres',
		"SET session_manager.device_proof_lifetime = 1; $sql");
}

sub live_later
{
	my ($token, $where) = @_;
	return later("SELECT count(*) FROM session_get('$token')", $where);
}

sub prove
{
	my ($token, $sql) = @_;
	return value(
		"$sql SELECT proof FROM session_prove_device('$token', session_device_challenge('$token'))"
	);
}

sub wait_out_grace
{
	my ($token, $where) = @_;
	return wait_until(sub { live_later($token, $where) eq '0' });
}

# Of the victim, or of another user
sub events
{
	my ($event, $cause, $user) = @_;
	$user //= 'victim';
	return value(
		"SELECT count(*) FROM session_events WHERE event = '$event' AND detail ->> 'cause' = '$cause' AND user_id = '$user'"
	);
}

# Send a statement that has to wait for a lock, and wait until it does.
sub ask
{
	my ($connection, $sql) = @_;
	$connection->query_until(qr/sent/, "\\echo sent\n$sql;\n");
	ok( wait_until(
			sub {
				value(
					"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
				) eq '1';
			}),
		'the other waits');
	return;
}

# A standby
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

my ($token, $proof) = bound('ann');
$node->wait_for_catchup('standby', 'replay');
ok(wait_out_grace($token), 'a token alone works for a while');
is(live_later($token, $standby), '0', 'and then on a standby neither');
is(live_later("$token.$proof", $standby), '1', 'with a proof it does');
is( $standby->safe_psql(
		'postgres',
		"SELECT length(session_device_challenge('$token')), count(*) FROM session_device('$token')"
	),
	'40|1',
	'a standby challenges the device');
like(
	failure($standby, "SELECT session_prove_device('$token', 'x')"),
	qr/cannot execute session_prove_device\(\)/,
	'but cannot take its answer');

# What is new at the primary works at once where nothing is replayed
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
my $fresh = prove($token, '');
is(live_later("$token.$fresh", $standby),
	'1', 'a new proof works on a standby that lags');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# Over a restart, and a crash
$node->restart;
is(live_later("$token.$fresh"), '1', 'after a restart');
$node->stop('immediate');
$node->start;
is(live_later("$token.$fresh"), '1', 'and after a crash');
is(live_later($token), '0', 'the token alone works after neither');

# Two tabs, or browsers, that bind one session: one of them does
my $race = create_session($node, 'race');
my @challenge = map { value("SELECT session_device_challenge('$race')") } 1,
  2;
my ($first, $second) = (connection($node), connection($node));
query($first,
	"BEGIN; SELECT status FROM session_bind_device('$race', '$key', '$challenge[0]')"
);
ask($second,
	"SELECT status FROM session_bind_device('$race', '$key', '$challenge[1]')"
);
query($first, 'COMMIT');
like(query($second, 'SELECT 1'),
	qr/already_bound/, 'of two that bind a session one does');
is( value(
		"SELECT count(*) FROM session_events e JOIN user_sessions s USING (session_id)
		WHERE s.user_id = 'race' AND event = 'device_bound'"),
	'1',
	'as the audit trail says');

# Two tabs that answer one challenge
my $same = value("SELECT session_device_challenge('$token')");
query($first,
	"BEGIN; SELECT status FROM session_prove_device('$token', '$same')");
ask($second, "SELECT status FROM session_prove_device('$token', '$same')");
query($first, 'COMMIT');
like(query($second, 'SELECT 1'),
	qr/bad_challenge/, 'a challenge is answered once');

# A binding that rolls back leaves the session as it was
my $undone = create_session($node, 'undone');
value(
	qq(
	BEGIN;
	SELECT session_bind_device('$undone', '$key', session_device_challenge('$undone'));
	ROLLBACK));
is( later(
		"SELECT count(*), max(device_proved_at) FROM session_get('$undone')"),
	'1|',
	'a binding that rolls back binds nothing');

# A thief: critical once the last proof has been over for long.  Seen by
# listeners, by the counters, and where the transaction writes nothing.
my ($stolen) = bound('victim');
my $late = events('rejected', 'proof_missing');
my $age =
  "SELECT extract(epoch FROM clock_timestamp() - proved_at) FROM session_device('$stolen')";
ok( wait_until(sub { value($age) > 4 }),
	'the last proof has been over for a while');
is( value(
		qq(
		SELECT (set_config('session_manager.device_proof_lifetime', floor(($age) / 2)::text, false)) IS NOT NULL,
			(SELECT count(*) FROM session_get('$stolen')))
	),
	't|0',
	'it is refused');
is(events('device_proof_failed', 'proof_missing'),
	'0', 'a browser that is late is no thief');
is(events('rejected', 'proof_missing'), $late + 1, 'though it is recorded');
$second = connection($node);
query($second, 'LISTEN session_alert');
is(live_later("$stolen."), '0', 'by shorter lifetimes it is over for long');
is(events('device_proof_failed', 'proof_missing'),
	'0', 'which may have a reason that the application knows');
is(live_later($stolen), '0', 'or not');
is(events('device_proof_failed', 'proof_missing'), '1', 'and is recorded');
my ($heard) = query($second, 'SELECT 1');
like(
	$heard,
	qr/Asynchronous notification "session_alert" with payload "\{"event": "device_proof_failed"/,
	'as listeners hear');
later(
	"BEGIN READ ONLY; SELECT count(*) FROM session_get('$stolen.$proof'); COMMIT"
);
ok( wait_until(sub { events('device_proof_failed', 'proof_wrong') eq '1' }),
	'a worker records it for a transaction that cannot write');
later(qq(BEGIN; SELECT count(*) FROM session_get('$stolen'); ROLLBACK));
ok( wait_until(sub { events('device_proof_failed', 'proof_missing') eq '2' }),
	'and for one that rolls back');
cmp_ok(
	value(
		"SELECT device_proofs_failed FROM session_stats WHERE database_name = 'postgres'"
	),
	'>=', 3,
	'all of it is counted');
is( value(
		"SELECT gets_unproved > 0 FROM session_stats WHERE database_name = 'postgres'"
	),
	't',
	'and so are the reads that it cost');

# While the last proof must be valid still, the device would have sent it
my ($copied) = bound('copied');
ok( wait_until(
		sub {
			value(
				"SELECT clock_timestamp() > bound_at + interval '3 s' FROM session_device('$copied')"
			) eq 't';
		}),
	'a session has been bound for a while');
is( value(
		"SET session_manager.device_proof_lifetime = 2;
		SELECT status FROM session_prove_device('$copied', session_device_challenge('$copied'));
		SELECT count(*) FROM session_get('$copied')"),
	"proved\n0",
	'somebody comes without the proof that has just been made');
is(events('device_proof_failed', 'proof_missing', 'copied'),
	'1', 'who is a thief');

# The keys of the extension
append_to_file(key_file($node), '2:' . random_key() . "\n");
value('SELECT session_key_add(2); SELECT session_key_activate(2)');
is(live_later("$token.$fresh"),
	'1', 'a proof outlives the rotation of the key');
my $second_proof = prove($token, '');
is(live_later("$token.$second_proof"), '1', 'and there are new ones');
value('SELECT session_reencrypt(10000)');
value("SELECT session_refresh('$token.$second_proof')");
is(live_later("$token.$fresh"), '1', 'also when the session has moved');
is( value(
		"SELECT verifier_key_id || ' ' || key_id FROM user_sessions WHERE user_id = 'ann'"
	),
	'2 2', 'it has');
value('SELECT session_key_revoke(1)');
is(live_later("$token.$fresh"),
	'0', 'a proof of a key that was revoked is none');
is(events('device_proof_failed', 'proof_wrong', 'ann'),
	'0', 'but no sign of a thief');
is(live_later("$token.$second_proof"), '1', 'those of others are');
write_file(key_file($node), '1:' . random_key() . "\n");
$node->restart;
like(failure($node, "SELECT * FROM session_get('$token.$fresh')"),
	qr/^SM003/, 'without its key there is no verdict');

# The library without preloading: the same
my $plain = new_node('plain');
my ($plain_token, $plain_proof) = split /\|/, $plain->safe_psql(
	'postgres',
	qq(
	SELECT b.session_token, b.proof FROM session_create('ann') AS s,
		session_bind_device(s.session_token, '$key', session_device_challenge(s.session_token)) AS b)
);
ok(wait_out_grace($plain_token, $plain), 'not preloaded: refused');
is(live_later("$plain_token.$plain_proof", $plain), '1', 'and let in');

done_testing();
