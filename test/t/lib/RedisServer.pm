
=pod

=head1 NAME

RedisServer - private Redis servers for the TAP tests of session_manager

=head1 DESCRIPTION

Each listens on a unix socket in a temporary directory, keeps nothing on disk,
and is ended by its process id when the object goes.  Commands are spoken to it
over a connection of the test's own.

=cut

package RedisServer;

use strict;
use warnings FATAL => 'all';

use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use POSIX       qw(:sys_wait_h);
use Time::HiRes qw(usleep time);

# A running server; further lines for its configuration.  With requirepass
# among them, the test's own connection logs in.
sub new
{
	my ($class, @conf) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my ($password) = map { /^requirepass (.*)/ } @conf;
	my $self = bless {
		dir => $dir,
		socket => "$dir/redis.sock",
		password => $password,
		conf => [
			'port 0', "unixsocket $dir/redis.sock",
			"dir $dir", "logfile $dir/log",
			'save ""', @conf
		]
	}, $class;
	$self->start;
	return $self;
}

sub socket { return $_[0]->{socket}; }
sub pid    { return $_[0]->{pid}; }
sub dir    { return $_[0]->{dir}; }

sub start
{
	my ($self) = @_;
	open my $fh, '>', "$self->{dir}/conf" or die "$self->{dir}/conf: $!";
	print $fh map { "$_\n" } @{ $self->{conf} };
	close $fh or die "$self->{dir}/conf: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec 'redis-server', "$self->{dir}/conf" or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	my $end = time() + 180;
	until ($self->answers)
	{
		die "redis-server does not start: see $self->{dir}/log"
		  if time() > $end;
		usleep(20_000);
	}
	return;
}

# Whether it answers.
sub answers
{
	my ($self) = @_;
	return eval { $self->call('PING'); 1 };
}

# End it at once, and wait until it is gone.
sub kill9
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'KILL', $self->{pid};
	waitpid($self->{pid}, 0);
	delete $self->{pid};
	delete $self->{fh};
	unlink $self->{socket};
	return;
}

sub stop     { kill 'STOP', $_[0]->{pid}; return; }
sub continue { kill 'CONT', $_[0]->{pid}; return; }

# Speak one command in database 1; dies with what Redis complains of.
sub call
{
	my ($self, @words) = @_;
	if (!$self->{fh})
	{
		$self->{fh} = IO::Socket::UNIX->new(Peer => $self->{socket})
		  or die "$self->{socket}: $!";
		$self->call('AUTH', $self->{password}) if $self->{password};
		# a cluster has one database only
		$self->call('SELECT', 1)
		  unless grep { $_ eq 'cluster-enabled yes' } @{ $self->{conf} };
	}
	my $text = '*' . @words . "\r\n";
	$text .= '$' . length($_) . "\r\n$_\r\n" foreach @words;
	my $fh = $self->{fh};
	print $fh $text;
	$fh->flush;
	my $answer = eval { $self->read_answer };
	if ($@)
	{
		my $problem = $@;
		delete $self->{fh};
		die $problem;
	}
	return $answer;
}

sub read_answer
{
	my ($self) = @_;
	my $fh = $self->{fh};
	local $/ = "\r\n";
	my $line = <$fh>;
	defined $line or die "Redis is gone\n";
	chomp $line;
	my ($kind, $rest) = (substr($line, 0, 1), substr($line, 1));
	die "$rest\n" if $kind eq '-';
	return $rest if $kind eq '+' || $kind eq ':';
	return undef if $rest < 0;
	return [ map { $self->read_answer } 1 .. $rest ] if $kind eq '*';
	my $text = '';

	while (length($text) < $rest + 2)
	{
		read($fh, $text, $rest + 2 - length($text), length($text))
		  or die "Redis is gone\n";
	}
	return substr($text, 0, $rest);
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	$self->continue if $self->{pid};
	$self->kill9;
	return;
}

1;
