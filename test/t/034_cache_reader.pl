# The reader in examples/: what it serves from where, and what it leaves in
# Redis.  A dump of Redis holds no token, no user and no session data.

use strict;
use warnings FATAL => 'all';
use utf8;

use Encode qw(encode_utf8);
use FindBin;
use lib "$FindBin::RealBin/lib";
use CacheHistory;
use CacheTest;
use Digest::SHA qw(sha256);
use IPC::Run;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep time);

my $redis = RedisServer->new('rdbcompression no');
my $node = cached_node('reader', $redis);
my $program = CacheHistory::compile('examples/cache_reader.c');
my $key_file = PostgreSQL::Test::Utils::tempdir() . '/application_key';
write_file($key_file, random_key() . "\n");

# A reader that stays; read_session() returns where from, and what.
sub start_reader
{
	my ($key, $other_program) = @_;
	my %reader = (in => '', out => '', err => '');
	$reader{run} = IPC::Run::start(
		[
			$other_program // $program, $node->connstr('postgres'),
			$redis->socket, $key // $key_file
		],
		\$reader{in},
		\$reader{out},
		\$reader{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%reader;
}

sub read_session
{
	my ($reader, $token) = @_;
	$reader->{out} = '';
	$reader->{in} .= "$token\n";
	$reader->{run}->pump until $reader->{out} =~ /\n/;
	my ($source, $row) = $reader->{out} =~ /^(\w+) (.*)\n$/;
	return wantarray ? ($source, $row) : $source;
}

# On a busy machine an answer of Redis may come later than the reader waits for
# it, and the database answers: true once the cache serves the session, whose
# row is then in $cached.  What the database answered is in %answered.
my $cached;
my %answered;

sub served_from_cache
{
	my ($reader, $token) = @_;
	return wait_until(
		sub {
			(my $source, $cached) = read_session($reader, $token);
			$answered{$cached} = 1 if $source eq 'database';
			$source eq 'cache';
		});
}

my $reader = start_reader();
my $other = start_reader();

# What is in the cache is what session_get returns.
my $user = 'auth0|zoë-7f3a';
my $profile = 'Profil von Zoë, 東京, Geheimnis 55-1234';
my $create = encode_utf8(
	qq{SELECT session_token FROM session_create('$user', '{"profile": "$profile", "n": 12345678901234567890.5}',
		tenant_id => 'acme', auth => '{"amr": ["pwd"]}')});
my $token = $node->safe_psql('postgres', $create);
my ($from, $row) = read_session($reader, $token);
is($from, 'database', 'the first read asks the database');
ok(served_from_cache($reader, $token), 'a later one finds the cache');
$answered{$row} = 1;
ok($answered{$cached}, 'and what the database has answered');
my $value = $redis->call('GET', redis_key($token));
ok(served_from_cache($other, $token), 'another reader finds it, too');
is($redis->call('GET', redis_key($token)), $value, 'the same value');

my $expected = decode_json(
	$node->safe_psql(
		'postgres',
		"SELECT to_jsonb(g) - 'data' FROM session_get('$token', touch => false) g"
	));
my $decoded = decode_json($cached);
is($decoded->{data}{profile}, $profile, 'data');
like($cached, qr/12345678901234567890\.5/, 'numbers are exact');
is_deeply(
	[ sort keys %$decoded ],
	[
		sort 'data', 'read_at',
		'cache_installation', 'touch_due',
		'device_proved', keys %$expected
	],
	'every column of session_get, and what session_get_json adds');
is("session:epoch:$decoded->{cache_installation}",
	epoch_key($node), 'the server whose epoch it is stored under');
is_deeply($decoded->{$_}, $expected->{$_}, $_)
  foreach
  qw(session_id user_id tenant_id version auth actor_id device_proved_at cacheable);

foreach
  my $column (grep { /_at$/ && defined $expected->{$_} } keys %$expected)
{
	is( $node->safe_psql(
			'postgres',
			"SELECT '$expected->{$column}'::timestamptz = to_timestamp(0) + $decoded->{$column} * interval '1 microsecond'"
		),
		't',
		"$column in microseconds");
}
cmp_ok($redis->call('PTTL', redis_key($token)),
	'<=', 300_000, 'a value vanishes after cache_ttl');

my $brief = $node->safe_psql('postgres',
	"SELECT session_token FROM session_create('brief', ttl => '200 s')");
ok(served_from_cache($reader, $brief), 'a session that ends soon');
my $left = $redis->call('PTTL', redis_key($brief));
ok($left > 0 && $left <= 200_000, 'and not later than its session')
  or diag($left);

# Who does not have the token gets nothing, and does no harm.
my ($id, $secret) = token_parts($token);
my $wrong = 'sm1_' . MIME::Base64::encode_base64url($id . ('x' x 32));
is(scalar(read_session($reader, $wrong)), 'none', 'a wrong secret');
is(scalar(read_session($reader, digest_form($token))),
	'none', 'a digest form is no token');
is(scalar(read_session($reader, 'nonsense')), 'none', 'nonsense');
my $foreign_key = "$key_file.other";
write_file($foreign_key, random_key() . "\n");
my $foreigner = start_reader($foreign_key);
is(scalar(read_session($foreigner, $token)),
	'database', 'another application key opens nothing');
is($redis->call('GET', redis_key($token)),
	$value, 'none of them pushes the value out');

# A token that was replaced
my $rotated = $node->safe_psql('postgres',
	"SELECT session_token FROM session_refresh('$token', true)");
is($redis->call('GET', redis_key($token)),
	'T', 'a rotation leaves a tombstone');
is(scalar(read_session($reader, $rotated)),
	'database', 'which means: the database');
is(scalar(read_session($reader, $token)),
	'database', 'the previous token works in its grace');
# the worker sends the tombstone again after the commit
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				'SELECT count(*) FROM session_outbox') == 0;
		}),
	'the worker has told Redis');
$redis->call('DEL', redis_key($token));
is(scalar(read_session($reader, $token)), 'database', 'the previous token');
is(scalar(read_session($reader, $token)), 'database', 'again');
unlike($redis->call('GET', redis_key($token)) // '', qr/^V/, 'fills nothing');
ok(served_from_cache($reader, $rotated), 'the current token does');
$value = $redis->call('GET', redis_key($rotated));
is(scalar(read_session($reader, $token)),
	'database', 'the previous token cannot open that');
is($redis->call('GET', redis_key($rotated)),
	$value, 'and does not push it out');

# Changes
$node->safe_psql('postgres',
	"SELECT session_update('$rotated', '{\"n\": 2}')");
($from, $row) = read_session($reader, $rotated);
is($from, 'database', 'after a change');
is(decode_json($row)->{data}{n}, 2, 'the new data');
my $doomed = create_session($node, 'doomed');
ok(served_from_cache($reader, $doomed), 'cached');
$node->safe_psql('postgres', "SELECT session_invalidate('$doomed')");
is(scalar(read_session($reader, $doomed)), 'none', 'revoked');

# What others may leave under the key
my $kept = create_session($node, 'kept');
foreach my $junk (
	'', 'V',
	'V' . epoch($node, $redis),
	'V' . epoch($node, $redis) . ("\x00" x 400),
	'V' . ('0' x 32),
	'L', 'X' . ('y' x 1000))
{
	$redis->call('SET', redis_key($kept), $junk);
	is(scalar(read_session($other, $kept)),
		'database', 'junk of ' . length($junk) . ' bytes is a miss');
}
$redis->call('DEL', redis_key($kept));
$redis->call('LPUSH', redis_key($kept), 'x');
is(scalar(read_session($other, $kept)), 'database', 'a list is a miss');
$redis->call('DEL', redis_key($kept));
ok(served_from_cache($other, $kept), 'and nothing is left of it');

# A dump
my @secrets = map { (token_parts($_))[1] } $token, $rotated, $kept;
ok(served_from_cache($reader, $brief), 'a small session');
my $rich = $node->safe_psql('postgres', $create);
push @secrets, (token_parts($rich))[1];
ok(served_from_cache($reader, $rich), 'a session with data is in the cache');
$redis->call('SET', 'canary', encode_utf8($profile));
$redis->call('SAVE');
my $dump = slurp_file($redis->dir . '/dump.rdb');

foreach my $key (@{ $redis->call('KEYS', '*') })
{
	next if $key eq 'canary';
	$dump .= $key . $redis->call('DUMP', $key) . "\n";
}
$dump .= $redis->call('INFO', 'all') . join ' ',
  map { @{ $_->[3] } } @{ $redis->call('SLOWLOG', 'GET', 100) };
is(() = $dump =~ /\Q${\encode_utf8($profile)}\E/g,
	1, 'the dump holds the canary');
like($dump, qr/\Q${\redis_key($rich)}\E/, 'and the id of a session');
my @digests = map {
	sha256( 'session_manager token v1'
		  . (token_parts($_))[0]
		  . (token_parts($_))[1])
} $token, $rotated, $kept, $rich;
foreach my $bytes (@secrets, @digests)
{
	my $hex = unpack 'H*', $bytes;
	my $base64 = substr encode_base64($bytes, ''), 0, 40;
	(my $base64url = $base64) =~ tr|+/|-_|;
	is((() = $dump =~ /\Q$bytes\E|\Q$hex\E|\Q$base64\E|\Q$base64url\E/gi),
		0, 'no secret and no digest');
}
foreach my $text ($token, $rotated, $kept, $rich)
{
	is(index($dump, substr($text, 30)), -1, 'no token');
}
foreach my $text ($user, 'zoë-7f3a', 'auth0', 'acme', '"profile"', 'user_id',
	'expires_at', '"amr"')
{
	is(index($dump, encode_utf8($text)),
		-1, "no \"" . encode_utf8($text) . '"');
}
is((() = $dump =~ /Geheimnis/g), 1, 'no profile');
chomp(my $hex_key = slurp_file($key_file));
is(index($dump, pack('H*', $hex_key)), -1, 'no application key');
# sizes say little: these sessions differ by some hundred bytes, or by none
my %sizes = map { length($redis->call('GET', redis_key($_))) => 1 } $kept,
  $brief;
is(scalar(keys %sizes), 1, 'values are padded');

# The connections of readers that Redis has seen so far.
sub connections
{
	my ($seen) =
	  $redis->call('INFO', 'stats') =~ /^total_connections_received:(\d+)/m;
	return $seen;
}

# Redis hangs: three reads wait for it, and once a second another, over a new
# connection; for the others the database answers at once.
my $before = connections();
$redis->stop;
my $start = time();
my @from = map { scalar read_session($reader, $rich) } 1 .. 50;
$redis->continue;
is( join(' ', @from),
	join(' ', ('database') x 50),
	'the database answers when Redis hangs');
ok(served_from_cache($reader, $rich), 'Redis is used again');
my $took = time() - $start;
my $tries = connections() - $before;
# the worker makes a new connection, too, when it has waited for long
cmp_ok(
	$tries, '<=',
	2 * $took + 2,
	"and was not tried again and again: $tries connections");

# Redis is late.  A reader that would leave it alone for an hour, and that
# patiently waits for each answer, comes back to it with the late one.
my $patient = start_reader(
	$key_file,
	CacheHistory::changed(
		'examples/cache_reader.c',
		"BREAKER_PAUSE	SECOND" => "BREAKER_PAUSE	(3600 * SECOND)",
		"REDIS_TIMEOUT	20000" => "REDIS_TIMEOUT	100000"));
ok(served_from_cache($patient, $rich), 'a reader of a Redis in order');
foreach my $time (1 .. 3)
{
	$redis->stop;
	my @late = map { scalar read_session($patient, $_) } ($rich, $kept) x 3;
	$redis->continue;
	is( join(' ', @late),
		join(' ', ('database') x 6),
		'the database answers while Redis is late');
	ok(served_from_cache($patient, $rich), 'then Redis is used again');
	# what came late was another session
	my ($late, $found) = read_session($patient, $rich);
	is(decode_json($found)->{user_id},
		$user, 'and its answers are not mistaken');
}
$redis->kill9;
is(scalar(read_session($reader, $rich)),
	'database', 'the database answers when Redis is gone');
$redis->start;
ok(served_from_cache($reader, $rich), 'a new Redis is used');

# Without a cache
$node->append_conf('postgresql.conf', "session_manager.redis_mode = off\n");
$node->reload;
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				'SELECT mode FROM session_cache_settings()') eq 'off';
		}),
	'switched off');
my $new = start_reader();
read_session($new, $rich);
is(scalar(read_session($new, $rich)), 'database', 'a reader does without');

write_file($foreign_key, 'abc');
my $bad = start_reader($foreign_key);
$bad->{run}->finish;
is($bad->{run}->result(0), 1, 'a bad key file is an error');
like($bad->{err}, qr/not a key of 64 hexadecimal digits/, 'which says why');

$_->{run}->kill_kill foreach $reader, $other, $foreigner, $patient, $new;
$node->stop;
done_testing();
