# The alert rules and the dashboard, as Prometheus has them beside a server under
# load.  test/t/long/watching.pl makes every fault; here are some, quickly.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use SessionManagerTest;
use Test::More;
use Time::HiRes qw(time);
use WatchTest;

my $root = "$FindBin::RealBin/../..";

# What Prometheus's own tool says of the files
foreach my $check (
	[ check => "$root/docs/session_manager_alerts.yml" ],
	[ test => "$root/test/prometheus/alerts.yml" ])
{
	my ($verb, $file) = @$check;
	my $output = '';
	ok( IPC::Run::run([ 'promtool', $verb, 'rules', $file ], '>&', \$output),
		"promtool $verb rules") or diag($output);
}
WatchTest::check_dashboard();

my $redis = RedisServer->new;
my $node = new_node(
	'alerts',
	preload => 'session_manager',
	conf => WatchTest::conf()
	  . "session_manager.redis_socket = '@{[ $redis->socket ]}'\n");
WatchTest::prepare($node);
my $watch = WatchTest->new(30, $node);
my $load = start_load(10, $node);
my $began = time();
my %faults = faults($node, $redis);

foreach my $name (
	'a token is replayed',
	'others may read the key file',
	'Redis is down')
{
	$watch->fault($node, $name, %{ $faults{$name} });
}
cmp_ok(
	$node->safe_psql('postgres', 'SELECT updates FROM session_stats') /
	  (time() - $began),
	'>', 3, 'all under load');
$watch->dashboard_shows('alerts', $began, time(), 0);
stop_load($load);
$watch->stop;
$node->stop;

done_testing();
