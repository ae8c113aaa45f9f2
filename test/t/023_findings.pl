# What a function found stands, even when its transaction rolls back.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node(
	'findings',
	preload => 'session_manager',
	conf => qq(
session_manager.rotation_grace = 0
session_manager.touch_interval = 0
max_prepared_transactions = 2
));

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub events
{
	my ($user) = @_;
	return value(
		"SELECT string_agg(event, ' ' ORDER BY event_id) FROM session_events WHERE user_id = '$user' AND event NOT IN ('created', 'rotated', 'elevated')"
	);
}

# A session whose token was replaced and whose successor was used
sub rotated
{
	my ($user, $more) = @_;
	my $old = create_session($node, $user, $more);
	my $new = value(
		"SELECT session_token FROM session_refresh('$old', rotate => true)");
	value("SELECT count(*) FROM session_get('$new')");
	return ($old, $new);
}

# True in a second, give or take the time a worker takes to start, which a busy
# machine makes longer, as it does that of psql.
sub soon
{
	my ($condition) = @_;
	my $start = time();
	my $met = wait_until($condition);
	my $end = time();
	value('SELECT 1');
	my ($took, $psql) = ($end - $start, time() - $end);
	note(sprintf('took %.2f s, psql %.2f s', $took, $psql));
	return $met && $took < 3 + 10 * $psql;
}

ok(first_pass($node), 'the first pass is over');

# Replay
my ($old, $new) = rotated('ann');
is(value("BEGIN; SELECT status FROM session_refresh('$old'); ROLLBACK"),
	'reused', 'a replay in a transaction that rolls back');
ok(soon(sub { !live($node, $new) }), 'ends the session all the same');
is(events('ann'), 'token_reused invalidated', 'with its events');
is(value("SELECT revoked_reason FROM user_sessions WHERE user_id = 'ann'"),
	'token_reused', 'and its reason');

($old, $new) = rotated('bea');
is(value("SELECT status FROM session_refresh('$old')"),
	'reused', 'one that commits');
is(live($node, $new), 0, 'ends it at once');
is(events('bea'), 'token_reused invalidated', 'and is recorded');
is(value('SELECT findings_queued FROM session_stats'),
	1, 'once: nothing is left to a worker');

($old, $new) = rotated('cat');
value(
	"BEGIN; SAVEPOINT s; SELECT status FROM session_refresh('$old'); ROLLBACK TO s; COMMIT"
);
ok(soon(sub { !live($node, $new) }), 'a savepoint undoes none');
is(events('cat'), 'token_reused invalidated', 'nor its events');

($old, $new) = rotated('dan');
value(
	"BEGIN; SAVEPOINT s; SELECT status FROM session_refresh('$old'); RELEASE s; COMMIT"
);
is( events('dan'),
	'token_reused invalidated',
	'a savepoint that is released is none');
is(value('SELECT findings_queued FROM session_stats'),
	2, 'and leaves nothing to a worker either');

($old, $new) = rotated('ivy');
value(
	"BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT status FROM session_refresh('$old'); RELEASE b; ROLLBACK TO a; COMMIT"
);
ok(soon(sub { !live($node, $new) }), 'unless an outer one is rolled back');

($old, $new) = rotated('eve');
isnt(
	$node->psql(
		'postgres',
		"BEGIN; SELECT status FROM session_refresh('$old'); SELECT 1/0; COMMIT"
	),
	0,
	'a transaction that fails');
ok(soon(sub { !live($node, $new) }), 'undoes none either');

# The session is being written to meanwhile
($old, $new) = rotated('fay');
my $holder = connection($node);
my $replay = connection($node);
query($replay, "BEGIN; SELECT status FROM session_refresh('$old');");
$holder->query_until(qr/waits/,
	qq(\\echo waits\nBEGIN; SELECT count(*) FROM session_update('$new', '{"n": 1}');\n)
);
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
			) == 1;
		}),
	'somebody waits to write to the session');

# No worker is to come before who waits: whichever is first locks the row.
my $launcher = value(
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager launcher'"
);
kill 'STOP', $launcher or die "cannot stop the launcher: $!";
my $looks = 0;
ok( wait_until(
		sub {
			my $workers = value(
				"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_manager worker'"
			);
			$looks = $workers eq '0' ? $looks + 1 : 0;
			return $looks == 5;
		}),
	'no worker is under way');
query($replay, 'ROLLBACK');
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
			) == 1;
		}),
	'and then has written, and not committed');
kill 'CONT', $launcher or die "cannot continue the launcher: $!";
my $passes = value('SELECT last_pass_at FROM session_stats');
ok( wait_until(
		sub {
			value(
				"SELECT last_pass_at > '$passes'::timestamptz + interval '500 ms' FROM session_stats"
			) eq 't';
		}),
	'workers do not wait for it');
query($holder, 'COMMIT');
ok(soon(sub { !live($node, $new) }), 'and end the session once they can');
is(events('fay'), 'updated token_reused invalidated', 'in that order');
$holder->quit;

# A connection that goes away in its transaction
($old, $new) = rotated('gus');
query($replay, "BEGIN; SELECT status FROM session_refresh('$old');");
$replay->quit;
ok(soon(sub { !live($node, $new) }),
	'a connection that goes away undoes none');

# Rejected, in a transaction that rolls back and in one that can write nothing
my $token = create_session($node, 'gil', "ip => '192.0.2.1'");
my $guess = $token;
substr($guess, -1) = substr($guess, -1) eq 'A' ? 'B' : 'A';
value(
	"BEGIN; SELECT count(*) FROM session_get('$guess', '192.0.2.66', 'evil'); ROLLBACK"
);
ok( soon(sub { (events('gil') // '') eq 'rejected' }),
	'a guess is on record after a rollback');
value("BEGIN READ ONLY; SELECT count(*) FROM session_get('$guess'); COMMIT");
ok(soon(sub { (events('gil') // '') eq 'rejected rejected' }),
	'and after a read-only transaction');
is( value(
		"SELECT host(ip) || ' ' || user_agent || ' ' || (detail ->> 'cause') FROM session_events WHERE user_id = 'gil' AND ip IS NOT NULL AND event = 'rejected'"
	),
	'192.0.2.66 evil mismatch',
	'with what is known of it');

# Another network
$node->append_conf('postgresql.conf',
	'session_manager.client_binding = strict');
$node->reload;
is( value(
		"BEGIN; SELECT count(*) FROM session_get('$token', '198.51.100.1'); ROLLBACK"
	),
	0,
	'a session is refused to another network');
ok(soon(sub { events('gil') =~ / client_changed$/ }), 'which is on record');
value(
	"BEGIN READ ONLY; SELECT count(*) FROM session_get('$token', '198.51.100.1'); COMMIT"
);
ok(soon(sub { events('gil') =~ / client_changed client_changed$/ }),
	'read-only as well');
$node->append_conf('postgresql.conf', 'session_manager.client_binding = log');
$node->reload;
is( value(
		"BEGIN READ ONLY; SELECT count(*) FROM session_get('$token', '198.51.100.1'); ROLLBACK"
	),
	1,
	'or let in');
ok(soon(sub { events('gil') =~ /( client_changed){3}$/ }),
	'with a record, too');
$node->append_conf('postgresql.conf', 'session_manager.client_binding = off');
$node->reload;

# session_bind
value("SELECT session_invalidate('$token')");
value("BEGIN; SELECT session_bind('$token'); ROLLBACK");
ok(soon(sub { events('gil') =~ / bind_failed$/ }),
	'a failed session_bind is on record');

# Corrupt: the error itself rolls back
$token = create_session($node, 'hal');
value(
	"UPDATE user_sessions SET sealed_data = set_byte(sealed_data, 40, get_byte(sealed_data, 40) # 1) WHERE user_id = 'hal'"
);
like(failure($node, "SELECT session_get('$token')"),
	qr/^SM004/, 'corrupt data is an error');
ok(soon(sub { (events('hal') // '') eq 'corrupt' }), 'and on record');
is(value("SELECT gets_corrupt FROM session_stats"), 1, 'and counted');
like(failure($node, "BEGIN READ ONLY; SELECT session_get('$token')"),
	qr/SM004/, 'in a read-only transaction');
ok(soon(sub { (events('hal') // '') eq 'corrupt corrupt' }), 'as well');

# More than the queue holds, while a worker cannot empty it
my ($queued, $lost) = split /\|/,
  value('SELECT findings_queued, findings_overflowed FROM session_stats');
$holder = connection($node);
query($holder, 'BEGIN');
query($holder, "LOCK TABLE $_ IN ACCESS EXCLUSIVE MODE")
  foreach split /\n/,
  value(
	"SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'session_events'::regclass"
  );
value(
	qq(
	SET default_transaction_read_only = on;
	DO \$\$
	BEGIN
		FOR i IN 1 .. 1500 LOOP
			BEGIN
				PERFORM session_get('$token');
			EXCEPTION WHEN SQLSTATE 'SM004' THEN
				NULL;
			END;
		END LOOP;
	END
	\$\$));
my ($queued_then, $lost_then) = split /\|/,
  value('SELECT findings_queued, findings_overflowed FROM session_stats');
$queued = $queued_then - $queued;
$lost = $lost_then - $lost;
is($queued + $lost, 1500, 'every finding is counted');
ok($queued >= 1024 && $lost > 400,
	"$queued queued, $lost for which there was no room");
query($holder, 'COMMIT');
$holder->quit;
ok( wait_until(
		sub {
			value(
				"SELECT count(*) FROM session_events WHERE event = 'corrupt' AND user_id = 'hal'"
			) == $queued + 2;
		}),
	'the queue is worked off');

# More than there is room for
my $before = value('SELECT findings_overflowed FROM session_stats');
value(
	q(
	CREATE TABLE replays AS
	SELECT c.session_token AS old, r.session_token AS new
	FROM generate_series(1, 40) AS i, session_create('many' || i) AS c,
		LATERAL session_refresh(c.session_token, rotate => true) AS r));
value('SELECT count(*) FROM replays, session_get(replays.new)');
value(
	'BEGIN; SELECT count(*) FROM replays, session_refresh(replays.old); ROLLBACK'
);
my $overflowed =
  value('SELECT findings_overflowed FROM session_stats') - $before;
ok($overflowed > 0,
	"findings beyond a transaction's room are counted: $overflowed");
ok( soon(
		sub {
			value(
				'SELECT count(*) FROM replays, session_get(replays.new, touch => false)'
			) == $overflowed;
		}),
	'and the others carried out');

# Refused tokens, of which there can be any number, leave room for a replay.
($old, $new) = rotated('zoe');
value(
	q(
	CREATE TABLE guesses AS
	SELECT overlay(session_token PLACING translate(substr(session_token, 40, 1), 'ABC', 'BCA') || 'zzz' FROM 40) AS token
	FROM generate_series(1, 40) AS i, session_create('guess' || i)));
value(
	"BEGIN; SELECT count(*) FROM guesses, session_get(guesses.token); SELECT status FROM session_refresh('$old'); ROLLBACK"
);
ok( soon(sub { live($node, $new) eq '0' }),
	'a replay behind many guesses is carried out');
is( value(
		"SELECT count(DISTINCT user_id) > 1, count(*) < 40 FROM session_events WHERE event = 'rejected' AND user_id LIKE 'guess%'"
	),
	't|t',
	'the guesses are on record as far as there was room, with their users');

unlike(slurp_file($node->logfile),
	qr/deadlock|PANIC|FATAL/, 'nothing went wrong');
# A prepared transaction cannot have a NOTIFY
foreach my $end (qw(ROLLBACK COMMIT))
{
	my $user = lc $end;
	($old, $new) = rotated($user);
	is( value(
			"SET session_manager.notify = off; BEGIN; SELECT status FROM session_refresh('$old'); PREPARE TRANSACTION '$user'"
		),
		'reused',
		'a replay in a transaction that is prepared');
	value("$end PREPARED '$user'");
	ok(soon(sub { !live($node, $new) }), "$end PREPARED: the session ends");
	# a worker would be at it by then
	my $passes = value('SELECT clock_timestamp()');
	ok( wait_until(
			sub {
				value(
					"SELECT last_pass_at > '$passes' FROM session_stats WHERE database_name = 'postgres'"
				) eq 't';
			}),
		'a pass goes by');
	is(events($user), 'token_reused invalidated', 'with its events, once');
}

$node->stop;

done_testing();
