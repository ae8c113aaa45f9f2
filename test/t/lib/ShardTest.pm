
=pod

=head1 NAME

ShardTest - fleets of shards, their standbys, and clients that know the map

=head1 DESCRIPTION

A map is a file with lines "first last connection string", as
test/history/shard_traffic.c and shard_traffic.py read it; shard.sh changes it by the command that
on_switch() returns.

=cut

package ShardTest;

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(
  shard_node
  standby_of
  server
  shard_sh
  succeeds
  fails
  shard_sh_until
  shard_sh_killed
  crash
  write_map
  on_switch
  start_traffic
  end_traffic
  event_ids
  strangers
);

my $root = abs_path(dirname(__FILE__) . '/../../..');
# as it is installed
chomp(my $script = `pg_config --sharedir`);
$script .= '/session_manager/shard.sh';
my $dir;
my $program;
my $backups = 0;

# A server that may become a shard, and be split.
sub shard_node
{
	my ($name, %params) = @_;
	return new_node(
		$name,
		preload => 'session_manager',
		streaming => 1,
		%params,
		conf => ($params{conf} // '') . qq(
wal_keep_size = 256MB
session_manager.sweep_interval = 2s
));
}

# A streaming standby that has caught up.
sub standby_of
{
	my ($primary, $name) = @_;
	my $backup = 'backup' . $backups++;
	$primary->backup($backup);
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($primary, $backup, has_streaming => 1);
	$standby->start;
	$primary->wait_for_catchup($name, 'replay');
	return $standby;
}

# How shard.sh is told of a server.
sub server
{
	my ($node) = @_;
	return $node->connstr('postgres');
}

# Run shard.sh: its status and what it prints.
sub shard_sh
{
	my (@arguments) = @_;
	my $output = '';
	my $run = IPC::Run::start([ $script, @arguments ],
		'<', '/dev/null', '>&', \$output,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$run->finish;
	note("shard.sh @arguments\n$output");
	return ($run->result(0), $output);
}

# It must succeed; returns what it prints.
sub succeeds
{
	my ($name, @arguments) = @_;
	my ($status, $output) = shard_sh(@arguments);
	is($status, 0, $name) or diag($output);
	return $output;
}

# It must fail, with this in its messages.
sub fails
{
	my ($name, $pattern, @arguments) = @_;
	my ($status, $output) = shard_sh(@arguments);
	ok($status != 0, "$name fails");
	like($output, $pattern, "$name says why");
	return;
}

# Run shard.sh, and do something when it comes to a step and has not begun it,
# or kill it there.  Returns whether it has come there, its status, and what it
# prints.
sub shard_sh_until
{
	my ($step, $action, @arguments) = @_;
	my $hold = PostgreSQL::Test::Utils::tempdir();
	my $output = '';

	# bash reads this file first, and runs its trap before each command
	write_file("$hold/env", <<"END");
set -T
trap '[[ \$BASH_COMMAND != "step $step "* ]] || {
  trap - DEBUG
  touch $hold/there
  while [ ! -e $hold/go ]; do sleep 0.02; done; }' DEBUG
END
	my $run;
	{
		local $ENV{BASH_ENV} = "$hold/env";
		$run = IPC::Run::start([ $script, @arguments ],
			'<', '/dev/null', '>&', \$output,
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	}
	wait_until(
		sub {
			$run->pump_nb;
			-e "$hold/there" || !$run->pumpable;
		});
	my $there = -e "$hold/there";
	if ($there)
	{
		$action ? $action->() : $run->signal('KILL');
	}
	write_file("$hold/go", '');
	$run->finish;
	note("shard.sh @arguments\n$output");
	return ($there, $run->result(0), $output);
}

# Run shard.sh, and after so many seconds do something, or kill it.  True if
# that was before its end.
sub shard_sh_killed
{
	my ($seconds, $action, @arguments) = @_;
	my $output = '';
	my $run = IPC::Run::start([ $script, @arguments ],
		'<', '/dev/null', '>&', \$output,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	usleep(1_000_000 * $seconds);
	$run->pump_nb;
	my $in_time = $run->pumpable;
	$action ? $action->() : $run->signal('KILL');
	$run->finish;
	note("shard.sh @arguments\n$output");
	return $in_time;
}

# Kill all of a server's processes.
sub crash
{
	my ($node) = @_;
	my $pid = $node->{_pid};
	my @children = split /\n/, `pgrep -P $pid`;
	$node->kill9;
	kill 'KILL', @children;
	wait_until(
		sub {
			!grep { kill 0, $_ } $pid, @children;
		}) or die 'the server lives on';
	return;
}

# Write a map of [first, last, node]s.
sub write_map
{
	my ($map, @ranges) = @_;
	write_file("$map.new",
		join('', map { "$_->[0] $_->[1] " . server($_->[2]) . "\n" } @ranges)
	);
	rename "$map.new", $map or die "$map: $!";
	return;
}

# A command for --on-switch that changes a map, which a crash leaves whole.
sub on_switch
{
	my ($map) = @_;
	$dir //= PostgreSQL::Test::Utils::tempdir();
	my $command = "$dir/on_switch";
	write_file($command, <<'END', 0755) unless -e $command;
#!/usr/bin/perl
# on_switch MAP BUCKETS SOURCE TARGET: what SOURCE has of BUCKETS is TARGET's
use strict;
use warnings;
my ($map, $buckets, undef, $target) = @ARGV;
my @given = map { [ split /-/ ] } split /,/, $buckets;
open my $in, '<', $map or die "$map: $!";
my @new = map { "$_->[0] $_->[1] $target\n" } @given;
while (<$in>)
{
	my ($first, $last, $server) = /^(\d+) (\d+) (.*)/ or die;
	for my $g (@given)
	{
		next if $g->[1] < $first || $g->[0] > $last;
		push @new, "$first " . ($g->[0] - 1) . " $server\n" if $g->[0] > $first;
		$first = $g->[1] + 1;
	}
	push @new, "$first $last $server\n" if $first <= $last;
}
open my $out, '>', "$map.$$" or die;
print $out @new;
close $out or die;
rename "$map.$$", $map or die;
END
	return "$command $map";
}

# Start clients that use the shards of a map: so many by libpq, and so many by
# the Django package, for which SM_DJANGO_PYTHON names a Python that has Django.
sub start_traffic
{
	my ($map, $clients, $django) = @_;
	$program //= compile();
	unlink "$map.stop";
	local $ENV{PYTHONPATH} = "$root/clients/django/src";
	my @commands = ([$program]) x $clients;
	push @commands,
	  ([ $ENV{SM_DJANGO_PYTHON}, "$root/test/history/shard_traffic.py" ]) x
	  ($django // 0);
	my $number = 0;
	return map {
		my %client = (output => '');
		$number++;
		$client{run} = IPC::Run::start(
			[ @$_, $map, "$map.stop", "user$number", 60 ],
			'<',
			'/dev/null',
			'>&',
			\$client{output},
			IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default)
		);
		\%client;
	} @commands;
}

# Have them end; returns the sums of what they have counted.
sub end_traffic
{
	my ($map, @clients) = @_;
	my %sum = (longest_wait => 0);
	write_file("$map.stop", '');
	for my $client (@clients)
	{
		$client->{run}->finish;
		note($client->{output});
		my ($last) = $client->{output} =~ /^(calls .*)$/m
		  or die "a client has failed: $client->{output}";
		for (split /, /, $last)
		{
			my ($name, $value) = /^([a-z ]+) ([0-9.]+)/ or die;
			$name =~ tr/ /_/;
			if ($name eq 'longest_wait')
			{
				$sum{$name} = $value if $value > $sum{$name};
			}
			else
			{
				$sum{$name} += $value;
			}
		}
	}
	diag(join ', ', map { "$_ $sum{$_}" } sort keys %sum);
	return %sum;
}

sub compile
{
	$dir //= PostgreSQL::Test::Utils::tempdir();
	my $config = $ENV{PG_CONFIG} or die 'PG_CONFIG is not set';
	chomp(my $include = `$config --includedir`);
	chomp(my $lib = `$config --libdir`);
	system_or_bail(
		'gcc', '-O2',
		'-Wall', '-Wextra',
		'-Werror', "-I$include",
		'-o', "$dir/shard_traffic",
		"$root/test/history/shard_traffic.c", "-L$lib",
		'-lpq');
	return "$dir/shard_traffic";
}

# The events' numbers on some servers: how many, and how many different ones.
sub event_ids
{
	my (@nodes) = @_;
	my (%seen, $n);
	for my $node (@nodes)
	{
		for (
			split /\n/,
			$node->safe_psql(
				'postgres', 'SELECT event_id FROM session_events'))
		{
			$seen{$_} = 1;
			$n++;
		}
	}
	return ($n, scalar keys %seen);
}

# How many sessions and events a server has that are of buckets it does not hold.
sub strangers
{
	my ($node) = @_;
	my @held;
	for (split /, */,
		$node->safe_psql('postgres', 'SHOW session_manager.shard'))
	{
		push @held, "b BETWEEN $1 AND $2" if /^(\d+)-(\d+)$/;
	}
	my $held = join ' OR ', @held;
	return $node->safe_psql(
		'postgres',
		"SELECT (SELECT count(*) FROM (SELECT session_bucket(session_id) AS b FROM user_sessions) AS s WHERE NOT ($held))
		+ (SELECT count(*) FROM (SELECT coalesce(session_bucket(session_id), session_bucket(user_id)) AS b FROM session_events) AS e WHERE NOT ($held))"
	);
}

1;
