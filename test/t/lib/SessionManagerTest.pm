
=pod

=head1 NAME

SessionManagerTest - what the TAP tests of session_manager share

=head1 DESCRIPTION

Makes servers with a key file and the extension in database postgres, and
wraps the few calls that every test repeats.  The servers listen on a unix
socket only; the test framework ends them.

=cut

package SessionManagerTest;

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256);
use Exporter 'import';
use IPC::Run;
use MIME::Base64 qw(encode_base64url decode_base64url);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(
  random_key
  write_file
  key_file
  has_module
  new_node
  install_extension
  create_session
  digest_form
  token_parts
  if_there
  live
  count_live
  connection
  query
  failure
  wait_until
  no_worker
  first_pass
  timed
  quick
  in_parallel
  finish_all
  long_runs
);

# Is a module of PostgreSQL's own installed?  PostgreSQL 16 comes without some.
sub has_module
{
	my ($name) = @_;
	chomp(my $dir = qx(pg_config --pkglibdir));
	return -e "$dir/$name.so";
}

# A fresh key as it stands in a key file.
sub random_key
{
	open my $fh, '<:raw', '/dev/urandom' or die "/dev/urandom: $!";
	read($fh, my $bytes, 32) == 32 or die "/dev/urandom: short read";
	close $fh;
	return unpack('H*', $bytes);
}

# Write a file under an exact mode, whatever the umask.
sub write_file
{
	my ($path, $content, $mode) = @_;
	unlink $path;
	open my $fh, '>', $path or die "$path: $!";
	print $fh $content;
	close $fh or die "$path: $!";
	chmod($mode // 0600, $path) or die "$path: $!";
	return;
}

# Where a node's key file lies: beside the data directory, not in it.
sub key_file
{
	my ($node) = @_;
	return $node->basedir . '/session_manager.keys';
}

=pod

=item new_node($name, %params)

A running server whose database postgres has the extension and key 1 active.
B<preload> lists shared_preload_libraries, B<conf> is appended to
postgresql.conf, B<key> is the master key in hexadecimal (random by default),
B<streaming> prepares for standbys, B<extension> =E<gt> 0 leaves the extension
out, B<start> =E<gt> 0 leaves the server stopped.

=cut

sub new_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(
		allows_streaming => $params{streaming} // 0,
		extra => [ '--encoding=UTF8', '--locale=C' ]);
	write_file(key_file($node), '1:' . ($params{key} // random_key()) . "\n");

	my $key_file = key_file($node);
	$node->append_conf(
		'postgresql.conf', qq(
log_statement = none
shared_buffers = 16MB
max_connections = 60
shared_preload_libraries = '@{[ $params{preload} // '' ]}'
session_manager.key_file = '$key_file'
));
	$node->append_conf('postgresql.conf', $params{conf}) if $params{conf};

	return $node if defined $params{start} && !$params{start};
	$node->start;
	install_extension($node, 'postgres')
	  unless defined $params{extension} && !$params{extension};
	return $node;
}

# The extension with key 1 active, in a schema of its own if one is named.
sub install_extension
{
	my ($node, $dbname, $schema) = @_;
	my $in = defined $schema ? "SCHEMA $schema" : '';
	my $prefix = defined $schema ? "$schema." : '';

	$node->safe_psql(
		$dbname, qq(
		SET client_min_messages = warning;
		CREATE EXTENSION session_manager $in CASCADE;
		SELECT ${prefix}session_key_add(1);));
	return;
}

# Log a user in; further arguments as SQL.  Returns the token.
sub create_session
{
	my ($node, $user, $more) = @_;
	$more = defined $more ? ", $more" : '';
	return $node->safe_psql('postgres',
		"SELECT session_token FROM session_create('$user'$more)");
}

# The session id and the secret of a token, as bytes.
sub token_parts
{
	my ($token) = @_;
	$token =~ /^sm1_([A-Za-z0-9_-]{64})$/ or die "not a token: $token";
	my $bytes = decode_base64url($1);
	return (substr($bytes, 0, 16), substr($bytes, 16));
}

# The digest form of a token, computed as a client would.
sub digest_form
{
	my ($token) = @_;
	my ($id, $secret) = token_parts($token);
	return 'sd1_'
	  . encode_base64url(
		$id . sha256('session_manager token v1' . $id . $secret));
}

# Whether a token opens a session.
sub live
{
	my ($node, $token, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres',
		"SELECT count(*) FROM session_get('$token', touch => false)");
}

# How many of the tokens open a session.
sub count_live
{
	my ($node, @tokens) = @_;
	return 0 + $node->safe_psql('postgres',
			"CREATE TEMP TABLE t (token text);\nCOPY t FROM stdin;\n"
		  . join('', map { "$_\n" } @tokens)
		  . "\\.\nSELECT count(*) FROM t, session_get(t.token, touch => false);\n"
	);
}

# A connection that stays open, and survives errors.
sub connection
{
	my ($node, $dbname, %params) = @_;
	return $node->background_psql(
		$dbname // 'postgres',
		on_error_stop => 0,
		extra_params =>
		  [ '-v', 'VERBOSITY=verbose', @{ $params{extra_params} // [] } ]);
}

# Run a query on an open connection: its output, or output and errors.
sub query
{
	my ($connection, $sql) = @_;
	$connection->{stderr} = '';
	my $output = $connection->query($sql);
	return wantarray ? ($output, $connection->{stderr}) : $output;
}

# The complaint of a statement that must fail: its first line starts with the
# SQLSTATE.  Empty if the statement succeeds.
sub failure
{
	my ($node, $sql, $dbname) = @_;
	my ($status, $stdout, $stderr) = $node->psql($dbname // 'postgres',
		$sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return '' if $status == 0;
	$stderr =~ s/^.*?ERROR:\s+//s;
	return $stderr;
}

# Poll until the condition holds; false when it never does.
sub wait_until
{
	my ($condition, $seconds) = @_;
	my $end = time() + ($seconds // 180);
	while (1)
	{
		return 1 if $condition->();
		return 0 if time() > $end;
		usleep(100_000);
	}
}

# A whole pass over a database has ended, and the next is not due.
sub first_pass
{
	my ($node, $dbname) = @_;
	$dbname //= 'postgres';
	return wait_until(
		sub {
			$node->safe_psql($dbname,
				"SELECT sweeps > 0 AND next_pass_at > clock_timestamp() FROM session_stats WHERE database_name = '$dbname'"
			) eq 't';
		});
}

# No worker serves a database any more, after a reload that says so.  One that
# was being started when the launcher read it is seen a moment later.
sub no_worker
{
	my ($node, $dbname) = @_;
	my $looks = 0;
	return wait_until(
		sub {
			my $seen = $node->safe_psql(
				$dbname,
				"SELECT (SELECT value !~ '^off' FROM session_info() WHERE key = 'workers')
				OR EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'session_manager worker')"
			);
			$looks = $seen eq 'f' ? $looks + 1 : 0;
			return $looks == 5;
		});
}

# What a query says, or nothing while the server is not there to ask: a psql
# that is refused may be gone before it was handed the query.
sub if_there
{
	my ($node, $sql) = @_;
	my ($status, $stdout) = eval { $node->psql('postgres', $sql) };
	return defined $status && $status == 0 ? $stdout : '';
}

# What a statement answers, and how many seconds it takes by the server's clock:
# to start psql takes long on a busy machine.
sub timed
{
	my ($node, $statement, $dbname) = @_;
	my $now = 'SELECT extract(epoch FROM clock_timestamp())';
	my @lines = split /\n/,
	  $node->safe_psql($dbname // 'postgres', "$now;\n$statement;\n$now;"),
	  -1;
	my ($began, $ended) = (shift @lines, pop @lines);
	return (join("\n", @lines), $ended - $began, $began, $ended);
}

# A statement that must succeed, and in five seconds, or in so many more.
sub quick
{
	my ($node, $name, $sql, $dbname, $more) = @_;
	my (undef, $took) = eval { timed($node, $sql, $dbname) };
	my $problem = $@;
	ok(defined $took && $took < 5 + ($more // 0), $name)
	  or diag(defined $took ? sprintf('%.1f s', $took) : $problem);
	return;
}

# Start commands at once; finish_all() waits for them.  Each command is a
# hash: cmd (array), out (file that takes stdout and stderr).
sub in_parallel
{
	my ($node, @commands) = @_;
	local %ENV = $node->_get_env();
	my @running;
	foreach my $c (@commands)
	{
		local %ENV = (%ENV, %{ $c->{env} // {} });
		push @running,
		  IPC::Run::start($c->{cmd}, '<', '/dev/null', '>', $c->{out}, '2>&1',
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	}
	return @running;
}

# Wait for commands that in_parallel() started; returns their exit codes.
sub finish_all
{
	return map { $_->finish; $_->result(0) } @_;
}

# How many times longer than usual the random tests shall run: 1, or the value
# of SM_LONG, or 20 when PG_TEST_EXTRA names session_manager.
sub long_runs
{
	return 0 + $ENV{SM_LONG} if $ENV{SM_LONG};
	return ($ENV{PG_TEST_EXTRA} // '') =~ /\bsession_manager\b/ ? 20 : 1;
}

1;
