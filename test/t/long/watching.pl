# Each alert of docs/session_manager_alerts.yml fires when its fault is made on a
# server under load, and nothing else does; on a server beside it and its
# standby, which are well under the same load for the same time, none fires.
# Each query of docs/grafana-dashboard.json returns data.
#
# SM_WATCH_FACTOR divides the durations of the rules (60; with 1 they are as they
# are shipped, which takes hours), SM_WATCH chooses faults by a pattern.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time);
use WatchTest;

my $factor = $ENV{SM_WATCH_FACTOR} // 60;
my $chosen = $ENV{SM_WATCH} // '';
my $conf = WatchTest::conf();

sub watched
{
	my ($name, $redis, $start) = @_;
	my $node = new_node(
		$name,
		preload => 'session_manager',
		streaming => 1,
		start => 0,
		conf => $conf
		  . "session_manager.redis_socket = '@{[ $redis->socket ]}'\n");
	$start->($node);
	install_extension($node, 'postgres');
	WatchTest::prepare($node);
	return $node;
}

# One that is well, and its standby
my $well_redis = RedisServer->new;
my $well = watched('well', $well_redis, sub { $_[0]->start });
$well->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($well, 'base', has_streaming => 1);
$standby->start;

# One that is not, whose clock can be set
my $redis = RedisServer->new;
my ($shifts, $library);

sub set_clock
{
	my ($wall) = @_;
	open my $fh, '+<:raw', $shifts or die "$shifts: $!";
	print $fh pack('qq', $wall, 0);
	close $fh or die "$shifts: $!";
	return;
}

sub start_with_clock
{
	my ($node) = @_;
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{SHIFT_CLOCK} = $shifts;
	$node->start;
	return;
}
my $node = watched(
	'ill', $redis,
	sub {
		my ($node) = @_;
		$shifts = $node->basedir . '/shifts';
		$library = $node->basedir . '/shift_clock.so';
		write_file($shifts, pack('qq', 0, 0), 0644);
		system('gcc', '-shared', '-fPIC', '-o', $library,
			"$FindBin::RealBin/../lib/shift_clock.c", '-ldl') == 0
		  or die 'no shift_clock.so';
		start_with_clock($node);
	});

my $watch = WatchTest->new($factor, $well, $standby, $node);
my $load = start_load(10, $well, $node);
my $token = create_session($well, 'seen');
$well->wait_for_catchup('standby', 'replay');
my $began = time();
my @table;
my @faults = faults(
	$node, $redis,
	clock => \&set_clock,
	start => sub { start_with_clock($node) });
my $rules = WatchTest::rules();
my %made;

while (my ($name, $fault) = splice @faults, 0, 2)
{
	next if $name !~ /$chosen/;
	$standby->safe_psql('postgres',
		"SELECT count(*) FROM session_get('$token')");
	my $took = $watch->fault($node, $name, %$fault);
	foreach my $alert (@{ $fault->{fires} })
	{
		$made{$alert} = 1;
		push @table,
		  sprintf '%-48s %-28s %6.1f s, %5.0f s of it "for"',
		  $name, $alert, $took->{$alert} // -1,
		  $rules->{$alert}{for} / $factor;
	}
}
my $ended = time();
diag(sprintf 'from a fault to its alert, with all durations divided by %s:',
	$factor);
diag($_) foreach @table;

foreach my $instance ($well, $standby)
{
	is_deeply($watch->alerts($instance->name, $began, $ended),
		{}, $instance->name . ': nothing has fired meanwhile');
}
diag(
	sprintf
	  'no alert of the server that is well, and of its standby, in %.0f s',
	$ended - $began);

# (a client of pgbench's ends with its first error)
my ($logins) = map { $_->{value}[1] } @{
	$watch->ask(
		sprintf
		  'increase(session_manager_sessions_created{instance="well"}[%ds])',
		$ended - $began)
};
cmp_ok($logins, '>', 5 * ($ended - $began), "under load: $logins logins");

if ($chosen eq '')
{
	is_deeply([ grep { !$made{$_} } sort keys %$rules ],
		[], 'every alert has had its fault');
	$watch->dashboard_shows('ill|standby', $began, $ended, 1);
}
stop_load($load);
$watch->stop;
$_->stop foreach $standby, $well, $node;

done_testing();
