# A clock that somebody sets: forward, back, by hours and by a year.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $day = 86400;
my $node = new_node(
	'clock',
	preload => 'session_manager',
	start => 0,
	conf => qq(
session_manager.sweep_interval = 1s
session_manager.flush_interval = 1s
session_manager.touch_interval = 0
session_manager.rotation_grace = 0
session_manager.event_retention = '90d'
session_manager.max_lifetime = '30d'
));
my $base = $node->basedir;
my $shifts = "$base/shifts";

# How far ahead the server's clocks are, in seconds.
sub set_clocks
{
	my ($wall, $monotonic) = @_;
	open my $fh, '+<:raw', $shifts or die "$shifts: $!";
	print $fh pack('qq', $wall, $monotonic // 0);
	close $fh or die "$shifts: $!";
	return;
}

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub sweeps
{
	return value(
		"SELECT sweeps FROM session_stats WHERE database_name = 'postgres'");
}

# Passes come, and touches and findings are dealt with.
sub works
{
	my ($when) = @_;
	my $before = sweeps();
	ok(wait_until(sub { sweeps() > $before + 1 }), "$when: passes come");
	my $token = create_session($node, 'seen');
	value(
		"UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE user_id = 'seen'"
	);
	value(
		"BEGIN READ ONLY; SELECT count(*) FROM session_get('$token'); COMMIT"
	);
	ok( wait_until(
			sub {
				value(
					"SELECT last_seen_at > clock_timestamp() - interval '30 min' FROM user_sessions WHERE user_id = 'seen'"
				) eq 't';
			}),
		"$when: uses are written");
	value("DELETE FROM user_sessions WHERE user_id = 'seen'");

	$token = create_session($node, 'replayed');
	my $next = value(
		"SELECT session_token FROM session_refresh('$token', rotate => true)"
	);
	value("SELECT count(*) FROM session_get('$next')");
	value("BEGIN; SELECT status FROM session_refresh('$token'); ROLLBACK");
	ok( wait_until(
			sub {
				value(
					"SELECT revoked_at IS NOT NULL FROM user_sessions WHERE user_id = 'replayed'"
				) eq 't';
			}),
		"$when: a replay that was rolled back is carried out");
	value("DELETE FROM user_sessions WHERE user_id = 'replayed'");
	return;
}

# Preloaded into the server alone, which inherits it from pg_ctl.
write_file($shifts, pack('qq', 0, 0), 0644);
my $library = "$base/shift_clock.so";
system('gcc', '-shared', '-fPIC', '-o', $library,
	"$FindBin::RealBin/lib/shift_clock.c", '-ldl') == 0
  or die 'no shift_clock.so';
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{SHIFT_CLOCK} = $shifts;
	$node->start;
}
install_extension($node, 'postgres');
ok(first_pass($node), 'workers are at work');
is(value("SELECT value FROM session_info() WHERE key = 'clock'"),
	'trusted', 'the clock is trusted');
my $year = value('SELECT extract(year FROM clock_timestamp())');

# What was seen before the clock was set back does not hide the first use of a
# token after it, which is written as ever.
my $token = create_session($node, 'rotated');
value("SELECT count(*) FROM session_get('$token')");
ok( wait_until(
		sub {
			value(
				"SELECT last_seen_at > created_at FROM user_sessions WHERE user_id = 'rotated'"
			) eq 't';
		}),
	'a use is written');
set_clocks(-3600);
my $next = value(
	"SELECT session_token FROM session_refresh('$token', rotate => true)");
is(value("SELECT count(*) FROM session_get('$next')"),
	1, 'the new token is used with the clock set back');
ok( wait_until(
		sub {
			value(
				"SELECT successor_used_at IS NOT NULL FROM user_sessions WHERE user_id = 'rotated'"
			) eq 't';
		}),
	'which is written');
value("DELETE FROM user_sessions WHERE user_id = 'rotated'");
is(value("SELECT clock_timestamp() < pg_postmaster_start_time()"),
	't', 'the clock is set back by an hour');
works('an hour back');
is(value("SELECT last_pass_age < interval '1 min' FROM session_stats"),
	't', 'the age of the last pass is right');
set_clocks(0);
works('set right again');

# A session that is bound to a device: a longer lifetime of proofs lets nobody in
# again who came too late, and a clock that is set back keeps no device out.
my ($bound, $proof) = split /\|/, value(
	q(
	SET session_manager.device_proof_lifetime = '1h';
	SELECT b.session_token, b.proof FROM session_create('bound') AS s, session_bind_device(s.session_token,
		'{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}',
		session_device_challenge(s.session_token)) AS b)
);
is(value("SELECT count(*) FROM session_get('$bound')"),
	1, 'a session that has just been bound needs no proof');
set_clocks(1200);
is( value(
		"SET session_manager.device_proof_lifetime = '2h';
		SELECT (SELECT count(*) FROM session_get('$bound')), (SELECT count(*) FROM session_get('$bound.$proof'))"
	),
	'0|1',
	'after that it does, whatever the lifetime of proofs is by then');
set_clocks(-3600);
is( value(
		"SELECT status FROM session_prove_device('$bound', session_device_challenge('$bound'))"
	),
	'proved',
	'with the clock set back the device proves itself');
is( value(
		"SELECT status FROM session_prove_device('$bound', session_device_challenge('$bound'))"
	),
	'proved',
	'and again');
set_clocks(0);
value("DELETE FROM user_sessions WHERE user_id = 'bound'");

# Forward by more than a day
my $live = create_session($node, 'live', "ttl => '10 days'");
my $partitions = value(
	"SELECT string_agg(inhrelid::text, ' ' ORDER BY inhrelid) FROM pg_inherits WHERE inhparent = 'session_events'::regclass"
);

sub left
{
	return value("SELECT count(*) FROM user_sessions WHERE user_id = 'live'");
}

sub partitions_left
{
	return value(
		"SELECT count(*) FROM pg_inherits WHERE inhparent = 'session_events'::regclass AND inhrelid IN ("
		  . join(', ', split / /, $partitions)
		  . ')');
}
my $n = split / /, $partitions;
my $log = -s $node->logfile;
set_clocks(400 * $day);
cmp_ok(value('SELECT extract(year FROM clock_timestamp())'),
	'>', $year, 'the clock jumps to another year');
works('400 days forward');
is(left(), 1, 'no session is deleted');
is(partitions_left(), $n, 'and no partition dropped');
like(
	slurp_file($node->logfile, $log),
	qr/WARNING:  the clock of the server has jumped forward by 400 days/,
	'the log warns');
like(value("SELECT value FROM session_info() WHERE key = 'clock'"),
	qr/^in doubt/, 'and session_info() tells');
value('SELECT session_cleanup()');
is(left() . ' ' . partitions_left(),
	"1 $n", 'session_cleanup() deletes nothing either');
set_clocks(0);
works('and back');
is(left() . ' ' . partitions_left(), "1 $n", 'nothing was lost');
is(live($node, $live), 1, 'the session lives');
is(value("SELECT value FROM session_info() WHERE key = 'clock'"),
	'trusted', 'the clock is trusted again');
is( value(
		"SELECT next_pass_at < clock_timestamp() + interval '1 min' FROM session_stats"
	),
	't',
	'the next pass is near');

# Forward for good
set_clocks(400 * $day);
ok( wait_until(
		sub {
			value("SELECT value FROM session_info() WHERE key = 'clock'") =~
			  /^in doubt/;
		}),
	'in doubt once more');
set_clocks(400 * $day + 240, 240);
my $sweeps = sweeps();
ok(wait_until(sub { sweeps() > $sweeps + 1 }), 'four minutes later');
is(left(), 1, 'no session is deleted yet');
set_clocks(400 * $day + 360, 360);
ok(wait_until(sub { left() eq '0' }),
	'after some minutes more it is believed, and the session deleted');
ok( wait_until(sub { partitions_left() < $n }),
	'and a partition past retention dropped');
$node->stop;

done_testing();
