# An assertion of one server is bound by a database of another, for row-level
# security, and by no other; whatever is forged with a key that is trusted is
# judged by what it says; keys change and go.  openssl checks what the server
# signs, and signs what the server must refuse.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/lib";

use MIME::Base64 qw(encode_base64url decode_base64url);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;

# What openssl makes of a file, by a key in a file.
sub openssl
{
	my ($input, @arguments) = @_;
	write_file("$dir/in", $input);
	my $output = '';
	IPC::Run::run([ 'openssl', @arguments ], '>', \$output, '2>',
		\my $errors);
	return $output;
}

# An assertion with these claims, by the key that openssl has made.
sub forge
{
	my ($claims, $header) = @_;
	my $signed = encode_base64url($header) . '.' . encode_base64url($claims);
	return "$signed."
	  . encode_base64url(
		openssl(
			$signed, 'pkeyutl', '-sign', '-rawin',
			'-inkey', "$dir/key.pem", '-in', "$dir/in"));
}

# The issuer's id and keys, as text for SQL.
sub keys_of
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT session_assertion_keys()');
}

sub trust
{
	my ($node, $dbname, $keys) = @_;
	return $node->safe_psql($dbname, "SELECT session_trust(\$\$$keys\$\$)");
}

sub assertion
{
	my ($node, $token, $audience) = @_;
	return $node->safe_psql('postgres',
		"SELECT session_assertion('$token', '$audience')");
}

# Whom an assertion makes of an ordinary role, and what rows it shows.
sub bound
{
	my ($node, $assertion, $dbname) = @_;
	return $node->safe_psql(
		$dbname // 'app', qq(
		SET ROLE web;
		BEGIN;
		SELECT session_bind('$assertion') AS bound \\gset
		SELECT concat_ws(',', :'bound', session_user_id(), session_tenant_id(),
			session_actor_id(), (SELECT string_agg(body, '+' ORDER BY body) FROM note));
		COMMIT;));
}

my $sessions =
  new_node('sessions', preload => 'session_manager', streaming => 1);
my $application = new_node('application', streaming => 1, extension => 0);

$application->safe_psql('postgres',
	"CREATE ROLE web; CREATE DATABASE app; CREATE DATABASE other");
for my $dbname ('app', 'other')
{
	$application->safe_psql($dbname,
		'CREATE EXTENSION session_manager CASCADE');
	is( $application->safe_psql($dbname, 'SELECT session_audience() IS NULL'),
		't',
		"$dbname: no audience before there is a key");
	my ($rc, $out, $errors) = $application->psql($dbname,
		"SELECT session_trust('" . keys_of($sessions) . "')");
	like(
		$errors,
		qr/no session key is active/,
		"$dbname: nor can it trust anybody");
	$application->safe_psql($dbname, 'SELECT session_key_add(1)');
	$application->safe_psql(
		$dbname, q(
		GRANT EXECUTE ON FUNCTION session_bind(text), session_audience(), session_user_id(), session_tenant_id(),
			session_actor_id(), session_id() TO web;	-- as docs/django.md has it
		CREATE TABLE note (owner text, body text);
		INSERT INTO note VALUES ('ann', 'of ann'), ('bob', 'of bob');
		ALTER TABLE note ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON note USING (owner = session_user_id());
		GRANT SELECT ON note TO web;));
	is(trust($application, $dbname, keys_of($sessions)),
		'1', "$dbname: trusts the sessions' server");
}
my $audience = $application->safe_psql('app', 'SELECT session_audience()');
my $other = $application->safe_psql('other', 'SELECT session_audience()');
isnt($audience, $other, 'two databases of a server are two audiences');

my $ann = create_session($sessions, 'ann');
my $bob = $sessions->safe_psql('postgres',
	"SELECT session_token FROM session_create('bob', tenant_id => 'acme')");
my $acted = $sessions->safe_psql('postgres',
	"SELECT session_token FROM session_create('bob', actor_token => '$ann')");
is(bound($application, assertion($sessions, $ann, $audience)),
	't,ann,of ann', 'bound on another server');
is( bound($application, assertion($sessions, digest_form($bob), $audience)),
	't,bob,acme,of bob',
	'with its tenant');
is( bound($application, assertion($sessions, $acted, $audience)),
	't,bob,ann,of bob',
	'with who acts as the user');
is(bound($application, assertion($sessions, $ann, $audience), 'other'),
	'f', 'not in another database of the same server');
is(bound($application, assertion($sessions, $ann, $other)),
	'f', 'nor here what is for that one');
is(bound($application, assertion($sessions, $ann, 'app')),
	'f', 'the audience is no name');
is($application->safe_psql('app', 'SELECT count(*) FROM user_sessions'),
	'0', 'no session is kept');

# Ended sessions
my $made = assertion($sessions, $bob, $audience);
$sessions->safe_psql('postgres', "SELECT session_invalidate('$bob')");
is(assertion($sessions, $bob, $audience), '', 'none of an ended session');
like(bound($application, $made),
	qr/^t,bob/,
	'one made before works for the rest of its 30 seconds, as documented');

# By another program
my ($header, $claims, $signature) = split /\./,
  assertion($sessions, $ann, $audience);
my ($x) = keys_of($sessions) =~ /"x": "([\w-]+)"/;
my $prefix =
  pack('H*', '302a300506032b6570032100');  # DER of a key of Ed25519, RFC 8410
write_file("$dir/public.der", $prefix . decode_base64url($x));
write_file("$dir/signature", decode_base64url($signature));
like(
	openssl(
		"$header.$claims", 'pkeyutl', '-verify', '-rawin',
		'-pubin', '-keyform', 'DER', '-inkey',
		"$dir/public.der", '-sigfile', "$dir/signature", '-in',
		"$dir/in"),
	qr/Signature Verified Successfully/,
	'openssl finds the signature right');
unlike(
	openssl(
		"$header.x$claims", 'pkeyutl', '-verify', '-rawin',
		'-pubin', '-keyform', 'DER', '-inkey',
		"$dir/public.der", '-sigfile', "$dir/signature", '-in',
		"$dir/in"),
	qr/Successfully/,
	'and of another message wrong');

# An issuer that lies: its key is trusted, and signs anything.
openssl('', 'genpkey', '-algorithm', 'ed25519', '-out', "$dir/key.pem");
my $liar = '01234567-89ab-4def-8123-456789abcdef';
my $public = encode_base64url(
	substr(
		openssl(
			'', 'pkey', '-in', "$dir/key.pem",
			'-pubout', '-outform', 'DER'),
		-32));
is( trust(
		$application,
		'app',
		qq({"issuer": "$liar", "keys": [{"kty": "OKP", "crv": "Ed25519", "x": "$public"}]})
	),
	'1',
	'a second issuer');
like(bound($application, assertion($sessions, $ann, $audience)),
	qr/^t,ann/, 'the first one is trusted as before');
my $kid = encode_base64url(
	Digest::SHA::sha256(qq({"crv":"Ed25519","kty":"OKP","x":"$public"})));
my $right = qq({"alg":"EdDSA","kid":"$kid","typ":"session+jwt"});
my $sid = '01900000-0000-7000-8000-000000000000';
my $now = time;

sub claims
{
	my ($changed, @more) = @_;
	my %claims = (
		iss => qq("$liar"),
		aud => qq("$audience"),
		sub => '"ann"',
		sid => qq("$sid"),
		iat => $now,
		exp => time + 20,
		%$changed);
	return '{'
	  . join(
		',',
		(   map  { qq("$_":$claims{$_}) }
			grep { defined $claims{$_} } sort keys %claims),
		@more) . '}';
}

is(bound($application, forge(claims({}), $right)),
	't,ann,of ann', 'one in order');
my ($installation) = keys_of($sessions) =~ /"issuer": "([\w-]+)"/;
my %refused = (
	'another issuer, that is trusted too' =>
	  claims({ iss => qq("$installation") }),
	'no issuer' => claims({ iss => undef }),
	'no audience' => claims({ aud => undef }),
	'a list of audiences' => claims({ aud => qq(["$audience"]) }),
	'another audience' => claims({ aud => qq("$other") }),
	'an end that is over' => claims({ exp => $now - 1 }),
	'an end that is far' => claims({ exp => $now + 3600 }),
	'no end' => claims({ exp => undef }),
	'an end that is a text' => claims({ exp => '"' . ($now + 20) . '"' }),
	'an end before 1970' => claims({ exp => -1 }),
	'an end beyond a timestamp' => claims({ exp => '9223372036854775807' }),
	'no user' => claims({ sub => undef }),
	'an empty user' => claims({ sub => '""' }),
	'a user that is a number' => claims({ sub => 1 }),
	'a user that is too long' => claims({ sub => '"' . 'x' x 2049 . '"' }),
	'no session' => claims({ sid => undef }),
	'a tenant that is no text' => claims({ tenant => '["acme"]' }),
	'a tenant that is null' => claims({ tenant => 'null' }),
	'an empty tenant' => claims({ tenant => '""' }),
	'a tenant that is too long' =>
	  claims({ tenant => '"' . 'x' x 2049 . '"' }),
	'an actor that is a text' => claims({ act => '"ann"' }),
	'an actor that is a list' => claims({ act => '["sub"]' }),
	'an actor without a name' => claims({ act => '{}' }),
	'an actor of another form' =>
	  claims({ act => '{"sub": {"sub": "ann"}}' }),
	'a list of claims' => '[' . claims({}) . ']',
	'no claims' => '{}',
	'a number' => '1');
for my $what (sort keys %refused)
{
	is(bound($application, forge($refused{$what}, $right)),
		'f', "refused: $what");
}
is(bound($application, forge(claims({}, qq("sub":"bob")), $right)),
	't,bob,of bob',
	'of two users the last one counts, as in all of PostgreSQL');
for my $header (
	qq({"alg":"none","kid":"$kid","typ":"session+jwt"}),
	qq({"alg":"HS256","kid":"$kid","typ":"session+jwt"}),
	qq({"alg":"EdDSA","kid":"$kid","typ":"JWT"}),
	qq({"alg":"EdDSA","typ":"session+jwt"}),
	qq({"alg": "EdDSA","kid":"$kid","typ":"session+jwt"}),
	qq({"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"$public"},"kid":"$kid","typ":"session+jwt"}),
	'')
{
	is(bound($application, forge(claims({}), $header)),
		'f', "refused header: $header");
}
# what cannot be read at all raises an error, and binds nobody
for my $bad (
	'{', '{"sub": "\ud800"}',
	"\xff\xfe",
	claims({ sid => '"x"' }),
	claims({ exp => '1e400' }))
{
	my $forged = forge($bad, $right);
	my ($rc, $out, $errors) = $application->psql('app',
		"SET ROLE web; BEGIN; SELECT session_bind('$forged'); ROLLBACK; SELECT session_user_id() IS NULL"
	);
	like($errors, qr/ERROR/,
		'an error: ' . unpack('H*', substr($bad, 0, 12)));
	unlike($errors, qr/server closed|XX000/, 'and no worse');
}

# Who writes to the table is not believed, nor what was trusted under another
# name or elsewhere.
my $row = "'\\x" . unpack('H*', decode_base64url($public)) . "'";
for my $write (
	"UPDATE session_issuers SET issuer = '$installation' WHERE public_key = $row",
	"UPDATE session_issuers SET mac = sha256(mac) WHERE public_key = $row",
	"UPDATE session_issuers SET mac = (SELECT mac FROM session_issuers WHERE public_key <> $row) WHERE public_key = $row",
	"UPDATE session_issuers SET key_id = 2 WHERE public_key = $row")
{
	$application->safe_psql('app',
		"CREATE TABLE kept AS TABLE session_issuers; $write");
	my $issuer = $write =~ /SET issuer/ ? $installation : $liar;
	is( bound($application, forge(claims({ iss => qq("$issuer") }), $right)),
		'f',
		"refused after: $write");
	$application->safe_psql('app',
		'DELETE FROM session_issuers; INSERT INTO session_issuers TABLE kept; DROP TABLE kept'
	);
}
like(bound($application, forge(claims({}), $right)),
	qr/^t,ann/, 'as it was, it is believed');
my $copied = $application->safe_psql('app',
	"SELECT s FROM session_issuers AS s WHERE public_key = $row");
$application->safe_psql('other',
	"INSERT INTO session_issuers SELECT ('$copied'::session_issuers).*");
is( bound(
		$application, forge(claims({ aud => qq("$other") }), $right),
		'other'),
	'f',
	'a row of another database is not believed');
is($application->safe_psql('app', "SELECT session_distrust('$liar')"),
	'1', 'no longer trusted');
is(bound($application, forge(claims({}), $right)), 'f', 'nor believed');

# A change of keys: one that is only added is in the set already.
append_to_file(key_file($sessions), '2:' . random_key() . "\n");
$sessions->safe_psql('postgres', 'SELECT session_key_add(2)');
is(trust($application, 'app', keys_of($sessions)),
	'2', 'the next key is trusted in time');
my $before = assertion($sessions, $ann, $audience);
$sessions->safe_psql('postgres', 'SELECT session_key_activate(2)');
my $after = assertion($sessions, $ann, $audience);
isnt(
	(split /\./, $before)[0],
	(split /\./, $after)[0],
	'the active key signs');
like(bound($application, $before), qr/^t,ann/, 'signed by the key before');
like(bound($application, $after), qr/^t,ann/, 'and by the new one');
is(bound($application, assertion($sessions, $ann, $other), 'other'),
	'f', 'a database that was not told does not know the new key');
$ann = create_session($sessions, 'ann');
$before = assertion($sessions, $ann, $audience);
$sessions->safe_psql('postgres',
	'SELECT session_key_activate(1); SELECT session_key_revoke(2)');
is(trust($application, 'app', keys_of($sessions)),
	'1', 'a revoked key is in the set no more');
is(bound($application, $before), 'f',
	'what it has signed is refused at once');

$ann = create_session($sessions, 'ann');

# A key of this side confirms whom it trusts, and cannot go before that has moved.
append_to_file(key_file($application), '2:' . random_key() . "\n");
$application->safe_psql('app',
	'SELECT session_key_add(2); SELECT session_key_activate(2)');
like(bound($application, assertion($sessions, $ann, $audience)),
	qr/^t,ann/, 'another active key here');
my ($rc, $out, $errors) =
  $application->psql('app', 'SELECT session_key_retire(1)');
like(
	$errors,
	qr/session key 1 is in use.*session_trust/s,
	'the old one is in use');
is(trust($application, 'app', keys_of($sessions)), '1', 'trusted again');
$application->safe_psql('app', 'SELECT session_key_retire(1)');
like(bound($application, assertion($sessions, $ann, $audience)),
	qr/^t,ann/, 'and then not');
append_to_file(key_file($application), '3:' . random_key() . "\n");
$application->safe_psql('app',
	'SELECT session_key_add(3); SELECT session_key_activate(3); SELECT session_key_revoke(2)'
);
is(bound($application, assertion($sessions, $ann, $audience)),
	'f', 'a revoked key confirms nothing');
is(trust($application, 'app', keys_of($sessions)),
	'1', 'trusted under the new one');

# Standbys make them and bind them; a dump keeps whom a database trusts.
for my $node ($sessions, $application)
{
	$node->backup('base');
}
my $sessions_standby = PostgreSQL::Test::Cluster->new('sessions_standby');
$sessions_standby->init_from_backup($sessions, 'base', has_streaming => 1);
$sessions_standby->start;
my $application_standby =
  PostgreSQL::Test::Cluster->new('application_standby');
$application_standby->init_from_backup($application, 'base',
	has_streaming => 1);
$application_standby->start;
is( bound(
		$application_standby, assertion($sessions_standby, $ann, $audience)),
	't,ann,of ann',
	'made by a standby, bound by a standby');

command_ok(
	[ 'pg_dump', '-Fc', '-f', "$dir/dump", $application->connstr('app') ],
	'dumped');
$application->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok(
	[
		'pg_restore', '--exit-on-error',
		'-d', $application->connstr('restored'),
		"$dir/dump"
	],
	'restored');
is(bound($application, assertion($sessions, $ann, $audience), 'restored'),
	't,ann,of ann', 'a copy of a database is the same audience');

done_testing();
