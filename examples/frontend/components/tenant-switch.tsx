'use client';

import { useTenant } from '@session-manager/react';
import { useState, type ReactElement } from 'react';
import { Icon } from './icons';

export function TenantSwitch(): ReactElement | null {
  const { tenantId, tenants, switchTenant } = useTenant();
  const [busy, setBusy] = useState(false);
  if (!tenantId) return null;

  async function change(id: string) {
    setBusy(true);
    try {
      await switchTenant(id);
    } finally {
      setBusy(false);
    }
  }

  return (
    <label className="tenant">
      <span className="hidden-visually">Organisation</span>
      <select value={tenantId} disabled={busy} onChange={(event) => void change(event.target.value)}>
        {tenants.map(({ id, name }) => (
          <option key={id} value={id}>
            {name ?? id}
          </option>
        ))}
      </select>
      <Icon name="chevron" size={18} />
    </label>
  );
}
