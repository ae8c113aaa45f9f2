import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { DeviceList } from '@/components/device-list';
import { load, requireSession } from '@/lib/session';
import type { Device, Page } from '@/lib/types';

export const metadata: Metadata = { title: 'Devices' };

export default async function DevicesPage(): Promise<ReactElement> {
  await requireSession('/devices');
  const { results } = await load<Page<Device>>('/api/sessions/');
  return <DeviceList devices={results} />;
}
